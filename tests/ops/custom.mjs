// Holds custom resources against their definitions: a JSON list of manifests on standard input.
// Ends with 1 if one of them is wrong, or of a kind that nobody knows.

import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

const modules = resolve(process.argv[2], "node_modules/@kubernetes-models");
const packages = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "postgresql.cnpg.io": "cloudnative-pg",
};

let wrong = 0;
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const { apiVersion, kind } = manifest;
  try {
    const folder = `${modules}/${packages[apiVersion.split("/")[0]]}/${apiVersion}`;
    const file = ["index.mjs", "index.js"].find((name) => existsSync(`${folder}/${name}`));
    const model = (await import(`${folder}/${file}`))[kind];
    new model(manifest).validate();
  } catch (error) {
    wrong += 1;
    console.error(`${kind} ${manifest.metadata?.name}: ${error.message}`);
  }
}
process.exit(wrong ? 1 : 0);
