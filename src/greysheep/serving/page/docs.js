"use strict";
// The OpenAPI page, drawn from openapi.json without a library.

function make(tag, text, ...within) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...within);
  return made;
}

let parts = {};
const named = (schema) => (schema.$ref ? parts[schema.$ref.split("/").pop()] : schema);

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.type || "anything";
}

function bounds(schema) {
  const said = [];
  if (schema.minimum !== undefined) said.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) said.push(`to ${schema.maximum}`);
  if (schema.default !== undefined) said.push(`default ${JSON.stringify(schema.default)}`);
  return said.join(", ");
}

function table(fields) {
  const rows = fields.map(([name, schema, more]) => make("tr", "", make("th", name), make("td", kind(schema)),
    make("td", [bounds(schema), more || schema.description || ""].filter(Boolean).join(". "))));
  const box = make("div", "", make("table", "", make("tbody", "", ...rows)));
  box.className = "scroll";
  return box;
}

function fields(schema, seen = new Set()) {
  const own = named(schema), name = schema.$ref || "";
  if (!own || !own.properties || seen.has(name)) return [];
  seen.add(name);
  const found = [make("h3", name.split("/").pop()), table(Object.entries(own.properties))];
  for (const one of Object.values(own.properties)) {
    for (const inner of [one, one.items, ...(one.anyOf || []), ...((one.anyOf || []).map((x) => x.items))]) {
      if (inner && inner.$ref) found.push(...fields(inner, seen));
    }
  }
  return found;
}

function call(method, path, told) {
  const section = make("section", "", make("h2", `${method.toUpperCase()} ${path}`), make("p", told.description || told.summary));
  section.className = "call";
  if (told.parameters) section.append(table(told.parameters.map((one) =>
    [one.name, one.schema, [one.in, one.required ? "required" : "", one.description || ""].filter(Boolean).join(", ")])));
  const details = make("details", "", make("summary", "Body and replies"));
  const body = told.requestBody && told.requestBody.content["application/json"];
  if (body) details.append(...fields(body.schema));
  for (const [status, reply] of Object.entries(told.responses)) {
    const content = reply.content && reply.content["application/json"];
    details.append(make("p", `${status}: ${reply.description}`));
    if (status === "200" && content) details.append(...fields(content.schema));
  }
  section.append(details);
  return section;
}

fetch("/openapi.json").then((reply) => reply.json()).then((told) => {
  parts = told.components.schemas;
  const calls = Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => call(method, path, one)));
  document.getElementById("calls").replaceChildren(make("p", told.info.description), ...calls);
}).catch(() => { document.getElementById("calls").textContent = "The service does not answer."; });
