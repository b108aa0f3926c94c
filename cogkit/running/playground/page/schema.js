// Reads a model's OpenAPI document: which inputs it has, of which kind, and how its output is to be shown.
// Nothing here touches the page.

const PREFIX = "#/components/schemas/";

/** What the page needs to know of a model. */
export function readModel(document) {
  const schemas = document?.components?.schemas ?? {};
  const input = schemas.Input ?? {};
  const required = new Set(input.required ?? []);
  const fields = Object.entries(input.properties ?? {})
    .map(([name, property]) => readField(schemas, name, property, required.has(name)))
    .sort((a, b) => a.order - b.order);
  return {
    fields,
    output: resolve(schemas, schemas.Output ?? {}),
    streams: document?.paths?.["/predictions"]?.post?.["x-cog-streaming"] === true,
  };
}

function readField(schemas, name, property, isRequired) {
  const schema = resolve(schemas, property);
  return {
    name,
    title: typeof schema.title === "string" && property.title !== undefined ? schema.title : name,
    description: property.description ?? "",
    isRequired,
    isDeprecated: schema.deprecated === true,
    hasDefault: Object.hasOwn(schema, "default"),
    default: schema.default,
    order: typeof schema["x-order"] === "number" ? schema["x-order"] : Number.MAX_SAFE_INTEGER,
    ...kindOf(schemas, schema),
  };
}

/** The kind of a value, and what holds for it: {kind, schema, choices?, item?, takesText?}. */
function kindOf(schemas, schema) {
  if (Array.isArray(schema.enum)) return { kind: "choice", schema, choices: schema.enum };
  if (Array.isArray(schema.anyOf)) {
    return { kind: "json", schema, takesText: schema.anyOf.some((each) => resolve(schemas, each).type === "string") };
  }
  switch (schema.type) {
    case "boolean":
      return { kind: "boolean", schema };
    case "integer":
    case "number":
      return { kind: "number", schema };
    case "array":
      return { kind: "list", schema, item: kindOf(schemas, resolve(schemas, schema.items ?? {})) };
    case "string":
      if (schema.format === "uri") return { kind: "file", schema };
      if (schema.format === "password" || schema["x-cog-secret"] === true) return { kind: "secret", schema };
      return { kind: "text", schema };
    default:
      return { kind: "json", schema, takesText: false };
  }
}

/** A schema with its references followed, and the one that is left of "this or null". */
function resolve(schemas, schema, depth = 0) {
  if (depth > 20 || schema === null || typeof schema !== "object") return {};
  let { $ref, allOf, anyOf, ...rest } = schema;
  if (typeof $ref === "string" && $ref.startsWith(PREFIX)) {
    rest = { ...resolve(schemas, schemas[$ref.slice(PREFIX.length)] ?? {}, depth + 1), ...rest };
  }
  for (const part of allOf ?? []) rest = { ...resolve(schemas, part, depth + 1), ...rest };
  if (Array.isArray(anyOf)) {
    const left = anyOf.filter((each) => each?.type !== "null");
    if (left.length === 1) return { ...resolve(schemas, left[0], depth + 1), ...rest, nullable: true };
    rest.anyOf = left;
  }
  return rest;
}

/** What a value must be like, in words. */
export function limitsOf({ schema, kind }) {
  const words = [];
  if (kind === "number") words.push(schema.type === "integer" ? "whole number" : "number");
  const [least, most] = [schema.minimum ?? schema.exclusiveMinimum, schema.maximum ?? schema.exclusiveMaximum];
  if (least !== undefined && most !== undefined) words.push(`${least} to ${most}`);
  else if (least !== undefined) words.push(`at least ${least}`);
  else if (most !== undefined) words.push(`at most ${most}`);
  if (schema.minLength !== undefined) words.push(`at least ${schema.minLength} characters`);
  if (schema.maxLength !== undefined) words.push(`at most ${schema.maxLength} characters`);
  if (schema.pattern !== undefined) words.push(`like ${schema.pattern}`);
  if (kind === "json") words.push("JSON");
  return words.join(", ");
}
