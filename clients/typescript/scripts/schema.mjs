/**
 * Writes `src/schema.d.ts`: the types of the REST interface, made from the server's own OpenAPI
 * document. `beseda openapi | node scripts/schema.mjs` writes it; with `--check` it only compares,
 * and also demands that the client has a call for every operation.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const TARGET = new URL('../src/schema.d.ts', import.meta.url);
const PREFIX = '/api/v1';
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

const api = JSON.parse(readFileSync(0, 'utf8'));
const made = schemaFile(api);
if (process.argv.includes('--check')) check();
else writeFileSync(TARGET, made);

function check() {
  const faults = [];
  if (readFileSync(TARGET, 'utf8') !== made) {
    faults.push('src/schema.d.ts is not what the OpenAPI document says: run `make client-schema`');
  }
  const source = readFileSync(new URL('../src/api.js', import.meta.url), 'utf8');
  for (const { name } of operations(api)) {
    if (!source.includes(`'${name}'`)) faults.push(`src/api.js has no call for ${name}`);
  }
  for (const fault of faults) console.error(fault);
  process.exitCode = faults.length ? 1 : 0;
}

/** Every operation under the API's base, named as the client names it: `GET /chats/`. */
function operations({ paths }) {
  return Object.entries(paths)
    .filter(([path]) => path.startsWith(`${PREFIX}/`))
    .flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => ({
      name: `${method.toUpperCase()} ${path.slice(PREFIX.length)}`,
      parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])],
      operation: item[method],
    })));
}

function schemaFile(document) {
  const lines = ['// Made from the OpenAPI document by scripts/schema.mjs. Do not edit.', ''];
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    lines.push(...comment(schema.description), `export type ${name} = ${typeOf(schema)};`, '');
  }
  lines.push('/** Every call: what goes into its path, query and body, and what comes back. */', 'export interface Operations {');
  for (const { name, parameters, operation } of operations(document)) {
    lines.push(`  '${name}': {`);
    for (const place of ['path', 'query']) {
      const fields = parameters.filter((parameter) => parameter.in === place)
        .map((parameter) => `${parameter.name}${parameter.required ? '' : '?'}: ${typeOf(parameter.schema)}`);
      lines.push(`    ${place}: {${fields.length ? ` ${fields.join('; ')} ` : ''}};`);
    }
    const body = content(operation.requestBody);
    lines.push(`    body: ${body ? typeOf(body) : 'undefined'};`, `    result: ${resultOf(operation)};`, '  };');
  }
  return `${lines.join('\n')}\n}\n`;
}

function resultOf({ responses }) {
  const bodies = Object.entries(responses)
    .filter(([status]) => status.startsWith('2'))
    .map(([, response]) => content(response))
    .map((schema) => (schema ? typeOf(schema) : 'null'));
  return [...new Set(bodies)].join(' | ');
}

function content(holder) {
  const [media] = Object.entries(holder?.content ?? {}).find(([kind]) => kind.includes('json')) ?? [];
  return media ? holder.content[media].schema : null;
}

function typeOf(schema, indent = '') {
  if (schema.$ref) return schema.$ref.split('/').at(-1);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  for (const [key, sign] of [['oneOf', ' | '], ['anyOf', ' | '], ['allOf', ' & ']]) {
    if (schema[key]) return schema[key].map((part) => typeOf(part, indent)).join(sign);
  }
  if (Array.isArray(schema.type)) {
    return schema.type.map((type) => typeOf({ ...schema, type }, indent)).join(' | ');
  }
  switch (schema.type) {
    case 'integer':
    case 'number':
      return 'number';
    case 'string':
    case 'boolean':
    case 'null':
      return schema.type;
    case 'array':
      return arrayOf(schema, indent);
    default:
      return objectOf(schema, indent);
  }
}

function arrayOf({ items, prefixItems }, indent) {
  if (prefixItems) return `[${prefixItems.map((item) => typeOf(item, indent)).join(', ')}]`;
  const item = typeOf(items ?? {}, indent);
  return /[|&]/.test(item) ? `(${item})[]` : `${item}[]`;
}

function objectOf({ properties, required = [], additionalProperties }, indent) {
  if (!properties) return `Record<string, ${additionalProperties?.type ? typeOf(additionalProperties, indent) : 'unknown'}>`;
  const inner = `${indent}  `;
  const fields = Object.entries(properties).flatMap(([name, schema]) => [
    ...comment(schema.description).map((line) => inner + line),
    `${inner}${name}${required.includes(name) ? '' : '?'}: ${typeOf(schema, inner)};`,
  ]);
  return ['{', ...fields, `${indent}}`].join('\n');
}

function comment(text) {
  return text ? [`/** ${text.replaceAll('*/', '* /').replace(/\s*\n\s*/g, ' ')} */`] : [];
}
