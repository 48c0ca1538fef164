/** The frames of the test vectors are the frames of the socket's document, field by field. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'));
const { components } = read('../../../src/api/asyncapi.json');
const payloads = new Map(Object.values(components.messages).map(({ name, payload }) => [name, payload]));

/** What is wrong with a value, by as much of JSON Schema as the document uses. */
function faults(value, schema, at) {
  if (schema.$ref) {
    const target = schema.$ref.slice('#/'.length).split('/').slice(1).reduce((part, key) => part[key], components);
    return faults(value, target, at);
  }
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.some((choice) => faults(value, choice, at).length === 0) ? [] : [`${at}: none of the choices`];
  if ('const' in schema && value !== schema.const) return [`${at}: not ${schema.const}`];
  if (schema.enum && !schema.enum.includes(value)) return [`${at}: not one of ${schema.enum}`];
  const kind = value === null ? 'null' : Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : typeof value;
  if (schema.type && ![schema.type].flat().includes(kind)) return [`${at}: ${kind}, not ${schema.type}`];
  if (kind === 'array') return value.flatMap((item, index) => faults(item, schema.items ?? {}, `${at}/${index}`));
  if (kind !== 'object' || !schema.properties) return [];
  return [
    ...(schema.required ?? []).filter((name) => !(name in value)).map((name) => `${at}: no ${name}`),
    ...Object.entries(value).flatMap(([name, field]) =>
      (schema.properties[name] ? faults(field, schema.properties[name], `${at}/${name}`) : [`${at}: ${name} is not known`])),
  ];
}

for (const file of readdirSync(new URL('../../vectors/', import.meta.url)).filter((name) => name.endsWith('.json'))) {
  test(`the frames of ${file} are those of the document`, () => {
    const { given = [], scenarios } = read(`../../vectors/${file}`);
    const frames = [...given, ...scenarios.flatMap(({ steps }) => steps)].map(({ frame }) => frame).filter(Boolean);
    assert.ok(frames.length > 0);
    for (const frame of frames) {
      const payload = payloads.get(frame.type);
      assert.ok(payload, `no frame ${frame.type}`);
      assert.deepEqual(faults(frame, payload, frame.type), []);
    }
  });
}
