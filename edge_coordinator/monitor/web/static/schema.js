// Reads a message by its JSON Schema, as the programs read it: checks it, fills in what was left
// out, drops what only a newer peer knows. It knows what the shipped schemas use of JSON Schema.

export class Malformed extends Error {}

const letters = (text) => [...text].length;
const TYPES = {
  null: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  integer: (value) => Number.isInteger(value),
  number: (value) => Number.isFinite(value),
  string: (value) => typeof value === "string",
  array: Array.isArray,
  object: (value) => value !== null && typeof value === "object" && !Array.isArray(value),
};
const CHECKS = {
  const: (value, only) => value === only,
  enum: (value, allowed) => allowed.includes(value),
  minimum: (value, least) => value >= least,
  maximum: (value, most) => value <= most,
  exclusiveMaximum: (value, bound) => value < bound,
  minLength: (value, least) => letters(value) >= least,
  maxLength: (value, most) => letters(value) <= most,
  pattern: (value, pattern) => new RegExp(pattern, "u").test(value),
  minItems: (value, least) => value.length >= least,
  maxItems: (value, most) => value.length <= most,
  maxProperties: (value, most) => Object.keys(value).length <= most,
};
const ELSEWHERE = new Set(["$defs", "$schema", "additionalProperties", "default", "description", "items",
  "patternProperties", "properties", "propertyNames", "required", "title", "type"]);

// Takes {schema, max_bytes} and the bytes of a message; Malformed says what is wrong with it.
export function read({ schema, max_bytes }, payload) {
  if (payload.length > max_bytes) throw new Malformed(`${payload.length} bytes are more than ${max_bytes}`);
  let tree;
  try {
    tree = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch (error) {
    throw new Malformed(`not JSON: ${error.message}`);
  }
  return taken(tree, schema, schema, "message");
}

function taken(value, schema, root, place) {
  if (schema.$ref) return taken(value, root.$defs[schema.$ref.split("/").at(-1)], root, place);
  if (schema.anyOf) return firstThatFits(value, schema.anyOf, root, place);
  if (schema.type && !TYPES[schema.type](value)) throw new Malformed(`${place}: not of type ${schema.type}`);
  for (const [keyword, wanted] of Object.entries(schema)) {
    if (ELSEWHERE.has(keyword)) continue;
    if (!CHECKS[keyword](value, wanted)) throw new Malformed(`${place}: not of ${keyword} ${wanted}`);
  }
  if (schema.type === "array") return value.map((each, at) => taken(each, schema.items, root, `${place}.${at}`));
  return schema.type === "object" ? members(value, schema, root, place) : value;
}

function firstThatFits(value, choices, root, place) {
  let fault;
  for (const choice of choices) {
    try {
      return taken(value, choice, root, place);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      fault ??= error;
    }
  }
  throw fault;
}

function members(value, schema, root, place) {
  const [names, parts] = [Object.keys(value), schema.properties];
  if (!parts) return Object.fromEntries(names.map((name) => [name, entry(name, value[name], schema, root, place)]));
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => {
    if (Object.hasOwn(value, name)) return [name, taken(value[name], part, root, `${place}.${name}`)];
    if (!("default" in part)) throw new Malformed(`${place}: without ${name}`);
    return [name, part.default];
  }));
}

// Of an object that may have any names, such as devices.
function entry(name, value, schema, root, place) {
  const [[pattern, part]] = Object.entries(schema.patternProperties ?? { "": schema.additionalProperties });
  taken(name, { pattern, ...schema.propertyNames }, root, place);
  return taken(value, part, root, `${place}.${name}`);
}
