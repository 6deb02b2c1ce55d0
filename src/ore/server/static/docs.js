"use strict";
// Renders the OpenAPI document and drives the form. No libraries, no markup from strings, nothing from other hosts.

const $ = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

// Prose: paragraphs, `code`, **strong** and [links](https://…), which is all that descriptions use. Relative links
// point into somebody else's site; their text is kept.
function prose(text) {
  if (!text) return null;
  const paragraphs = text.trim().split(/\n\s*\n/).map((paragraph) => el("p", {}, inline(paragraph)));
  return el("div", { class: "desc" }, paragraphs);
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)\s]+\))/).map((piece) => {
    if (/^`[^`]+`$/.test(piece)) return el("code", {}, piece.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(piece)) return el("strong", {}, piece.slice(2, -2));
    const link = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(piece);
    if (!link) return piece;
    return /^https?:/.test(link[2]) ? el("a", { href: link[2], rel: "noreferrer" }, inline(link[1])) : inline(link[1]);
  });
}

function codeBlock(text) {
  const copy = el("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return el("div", { class: "code" }, el("pre", {}, el("code", {}, text)), navigator.clipboard && copy);
}

// Schemas

let api = { paths: {} };
const methodClass = (method) => (["get", "post", "delete"].includes(method) ? method : "other");

function resolve(thing) {
  for (let hops = 0; thing && thing.$ref && hops < 20; hops++) {
    const target = thing.$ref.replace(/^#\//, "").split("/")
      .reduce((node, key) => node && node[key.replace(/~1/g, "/").replace(/~0/g, "~")], api);
    thing = { ...target, title: (target && target.title) || thing.$ref.split("/").pop() };
  }
  return thing || {};
}

function flat(schema) {
  const whole = resolve(schema);
  if (!whole.allOf) return whole;
  return whole.allOf.map(flat).reduce((sum, part) => ({
    ...part, ...sum,
    properties: { ...(part.properties || {}), ...(sum.properties || {}) },
    required: [...(part.required || []), ...(sum.required || [])],
  }), { ...whole, allOf: undefined });
}

const choices = (schema) => (schema.oneOf || schema.anyOf || []).map(flat).filter((choice) => choice.type !== "null");

const DEEP = 6; // schemas may contain themselves

function typeName(raw, depth = 0) {
  const schema = flat(raw);
  if (depth > DEEP) return "…";
  if ("const" in schema) return JSON.stringify(schema.const);
  const options = schema.oneOf || schema.anyOf;
  if (options) {
    const names = [...new Set(options.map((option) => typeName(option, depth + 1)))];
    return names.length > 4 ? `one of ${names.length}` : names.join(" | ");
  }
  const types = [].concat(schema.type || (schema.properties ? "object" : schema.enum ? "enum" : "any"));
  return types.map((type) => {
    if (type === "array") return `array of ${schema.items ? typeName(schema.items, depth + 1) : "any"}`;
    return type === "object" && schema.title ? schema.title : type;
  }).join(" | ");
}

const LIMITS = { minimum: "≥", maximum: "≤", exclusiveMinimum: ">", exclusiveMaximum: "<", minLength: "length ≥",
  maxLength: "length ≤", minItems: "items ≥", maxItems: "items ≤", maxProperties: "keys ≤", pattern: "matches" };

function facts(schema) {
  const chips = (schema.enum || []).filter((value) => value !== null).map((value) => JSON.stringify(value));
  for (const [key, sign] of Object.entries(LIMITS)) if (schema[key] != null) chips.push(`${sign} ${schema[key]}`);
  if (schema.default != null && chips.length !== 1) chips.push(`default ${JSON.stringify(schema.default)}`);
  return chips.length ? el("div", { class: "values" }, chips.map((chip) => el("code", {}, chip))) : null;
}

// What can be opened below a schema: its properties, or its alternatives. Made only when opened, so recursion is safe.
function inside(raw, depth = 0) {
  let schema = flat(raw);
  for (let levels = 0; schema.type === "array" && schema.items && levels < DEEP; levels++) schema = flat(schema.items);
  if (depth > DEEP) return [];
  if (schema.properties) {
    return Object.entries(schema.properties).map(([name, property]) => () => field(name, property, (schema.required || []).includes(name)));
  }
  const deep = choices(schema).filter((option) => inside(option, depth + 1).length);
  if (deep.length === 1) return inside(deep[0], depth + 1);
  return deep.map((option) => () => field(label(option), option, false, true));
}

const label = (schema) => (schema.type === "array" ? typeName(schema) : schema.title || typeName(schema));

function field(name, raw, required, choice) {
  const schema = flat(raw);
  const below = inside(raw);
  const head = [
    el("span", { class: "name" }, name),
    !choice && el("span", { class: "type" }, typeName(raw)),
    required && el("span", { class: "must" }, "required"),
  ];
  const about = [prose(schema.description), facts(schema)];
  if (!below.length) return el("li", { class: "field" }, head, about);
  return el("li", { class: "field" }, lazy(el("summary", {}, head, about), () => fields(below)));
}

const fields = (makers) => el("ul", { class: "fields" }, makers.map((make) => make()));

function lazy(summary, make, open) {
  const box = el("details", {}, summary);
  const fill = () => { if (box.open && box.children.length === 1) box.append(make()); };
  box.addEventListener("toggle", fill);
  if (open) { box.open = true; fill(); }
  return box;
}

// An example value: given, or the required properties only.
function example(raw, depth = 0) {
  const schema = flat(raw);
  if (depth > DEEP) return null;
  if (schema.example !== undefined) return schema.example;
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if ("const" in schema) return schema.const;
  if (schema.default != null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const options = choices(schema);
  if (options.length) return example(options.find((option) => option.type === "string") || options[0], depth + 1);
  const type = [].concat(schema.type || "object").find((kind) => kind !== "null");
  if (type === "array") return depth > 4 || !schema.items ? [] : [example(schema.items, depth + 1)];
  if (type === "object") {
    const names = depth > 4 ? [] : (schema.required || []).filter((name) => (schema.properties || {})[name]);
    return Object.fromEntries(names.map((name) => [name, example(schema.properties[name], depth + 1)]));
  }
  return { string: "string", integer: schema.minimum || 1, number: schema.minimum || 1, boolean: true }[type] ?? null;
}

// Operations

const jsonOf = (holder) => (holder.content || {})["application/json"] || Object.values(holder.content || {})[0];
const base = location.href.replace(/[^/]*([?#].*)?$/, "").replace(/\/$/, "");
const quote = (text) => `'${text.replace(/'/g, "'\\''")}'`;

function curl(method, path, body, key) {
  const verb = method === "get" || (method === "post" && body !== undefined) ? "" : `-X ${method.toUpperCase()} `;
  const url = `${base}${path.replace(/\{([^}]+)\}/g, (_, name) => `$${name.toUpperCase()}`)}`;
  const lines = [`curl ${verb}${/[$?]/.test(url) ? `"${url}"` : url}`];
  if (key) lines.push(`-H "Authorization: Bearer $ORE_API_KEY"`);
  if (body !== undefined) lines.push(`-H "Content-Type: application/json"`, `-d ${quote(JSON.stringify(body, null, 2).replace(/\n/g, "\n  "))}`);
  if (body && body.stream) lines.splice(1, 0, "--no-buffer");
  return lines.join(" \\\n  ");
}

function sampleBody(path, media) {
  if (!media) return undefined;
  const first = Object.values(media.examples || {})[0];
  const given = media.example !== undefined ? media.example : first && resolve(first).value;
  if (given !== undefined) return given;
  const model = $("form").elements.model.value || "MODEL";
  if (/\/responses$/.test(path)) return { model, input: "Say hello in one short sentence." };
  const made = media.schema ? example(media.schema) : {};
  return made && typeof made === "object" && "model" in made ? { ...made, model } : made;
}

const anchor = (method, path) => `${method}${path.replace(/[^a-z0-9]+/gi, "-").replace(/-$/, "")}`;

function operation(method, path, op) {
  const parameters = [...(api.paths[path].parameters || []), ...(op.parameters || [])].map(resolve);
  const media = op.requestBody && jsonOf(resolve(op.requestBody));
  const query = parameters.filter((parameter) => parameter.in === "query" && parameter.required)
    .map((parameter) => `${parameter.name}=${parameter.name.toUpperCase()}`).join("&");
  const parts = path.split(/(\{[^}]+\})/).map((piece) => (piece.startsWith("{") ? el("i", {}, piece) : piece));
  return el("article", { class: "operation", id: anchor(method, path) },
    el("header", {},
      el("span", { class: `verb badge ${methodClass(method)}` }, method.toUpperCase()),
      el("span", { class: "path" }, parts),
      el("span", { class: "summary" }, op.summary || "")),
    el("div", { class: "body" },
      prose(op.description),
      parameters.length > 0 && [el("h3", { class: "part" }, "Parameters"), el("ul", { class: "fields" }, parameters.map(parameterField))],
      media && media.schema && [el("h3", { class: "part" }, "Request body"), schemaBox(media.schema)],
      op.responses && [el("h3", { class: "part" }, "Answers"), answers(op.responses)],
      el("h3", { class: "part" }, "Example"),
      codeBlock(curl(method, path + (query && `?${query}`), sampleBody(path, media), api.components && api.components.securitySchemes))));
}

function parameterField(parameter) {
  const item = field(parameter.name, parameter.schema || {}, parameter.required);
  item.querySelector(".type").append(` in ${parameter.in}`);
  if (parameter.description && !(parameter.schema || {}).description) item.append(prose(parameter.description));
  return item;
}

function schemaBox(schema) {
  const below = inside(schema);
  const title = el("summary", {}, label(flat(schema)), below.length > 0 && el("span", { class: "count" }, ` ${below.length} fields`));
  return below.length ? lazy(title, () => fields(below)) : el("p", { class: "type" }, typeName(schema));
}

function answers(responses) {
  return el("dl", { class: "answers" }, Object.entries(responses).map(([status, raw]) => {
    const response = resolve(raw);
    const schemas = Object.entries(response.content || {}).filter(([, media]) => media.schema);
    return [
      el("dt", { class: /^[23]/.test(status) ? "ok" : "no" }, status),
      el("dd", {}, inline(response.description || ""), schemas.map(([type, media]) => [
        schemas.length > 1 && el("div", { class: "media" }, type), schemaBox(media.schema)])),
    ];
  }));
}

function render() {
  const info = api.info || {};
  if (info.title) $("title").textContent = info.title;
  $("about").replaceChildren(prose(info.description) || "");
  $("facts").replaceChildren(
    fact("Base URL", el("code", {}, `${base}/v1`)),
    info.version ? fact("Version", info.version) : "",
    fact("Document", el("a", { href: document.body.dataset.document }, "openapi.json")));
  const groups = new Map((api.tags || []).map((tag) => [tag.name, { about: tag.description, rows: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ["post", "get", "put", "patch", "delete"]) {
      const op = item[method];
      if (!op) continue;
      const tag = (op.tags || [])[0] || path.replace(/^\/v1/, "").split("/")[1] || "other";
      if (!groups.has(tag)) groups.set(tag, { rows: [] });
      groups.get(tag).rows.push([method, path, op]);
    }
  }
  const shown = [...groups].filter(([, group]) => group.rows.length);
  $("index").replaceChildren(...shown.flatMap(([tag, group]) => [el("h2", {}, tag), ...group.rows.map(indexEntry)]));
  $("reference").replaceChildren(...shown.flatMap(([tag, group]) => [
    el("h2", { class: "group" }, tag[0].toUpperCase() + tag.slice(1)),
    prose(group.about) || "",
    ...group.rows.map(([method, path, op]) => operation(method, path, op)),
  ]));
}

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

function indexEntry([method, path]) {
  return el("a", { class: "entry", href: `#${anchor(method, path)}` },
    el("span", { class: `verb ${methodClass(method)}` }, method === "delete" ? "DEL" : method.toUpperCase()),
    path.replace(/^\/v1/, "").replace(/\//g, "/\u200b"));
}

// The form

let running = null;

function bodyOfForm() {
  const { model, instructions, input, stream } = $("form").elements;
  return {
    ...(model.value ? { model: model.value } : {}),
    ...(instructions.value ? { instructions: instructions.value } : {}),
    input: input.value,
    ...(stream.checked ? { stream: true } : {}),
  };
}

function headersOfForm() {
  const key = $("form").elements.key.value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function status(text, kind) {
  $("status").textContent = text;
  $("status").className = `status ${kind}`;
}

async function send() {
  if (running) return;
  running = new AbortController();
  const body = bodyOfForm();
  const turn = { begun: performance.now(), first: null, count: 0, last: null, error: null };
  $("result").hidden = false;
  $("answer").replaceChildren();
  $("events").replaceChildren();
  $("events-box").hidden = !body.stream;
  $("try-curl").replaceChildren(codeBlock(curl("post", "/v1/responses", body, $("form").elements.key.value)));
  $("send").disabled = true;
  $("stop").hidden = false;
  status("Waiting for the model…", "busy");
  try {
    await exchange(body, turn);
  } catch (error) {
    status(error.name === "AbortError" ? "Stopped." : `The connection broke: ${error.message}`, "bad");
  } finally {
    running = null;
    $("send").disabled = false;
    $("stop").hidden = true;
  }
}

async function exchange(body, turn) {
  const answer = await fetch(`${base}/v1/responses`, {
    method: "POST", headers: headersOfForm(), body: JSON.stringify(body), signal: running.signal,
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    status(`${answer.status}: ${(problem.error && problem.error.message) || answer.statusText}`, "bad");
    return;
  }
  if (body.stream) for await (const event of eventsOf(answer.body)) onEvent(event, turn);
  else { turn.last = await answer.json(); showOutput(turn.last); }
  conclude(turn);
}

async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split(/\r?\n\r?\n/);
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function onEvent(event, turn) {
  turn.count += 1;
  $("events-count").textContent = turn.count;
  const { type, sequence_number: number, ...rest } = event;
  $("events").append(el("li", {}, el("span", { class: "n" }, String(number ?? "")), el("span", {}, type),
    el("span", { class: "data", title: JSON.stringify(rest, null, 1).slice(0, 4000) }, JSON.stringify(rest).slice(0, 300))));
  $("events").scrollTop = $("events").scrollHeight;
  if (/\.delta$/.test(type) && typeof event.delta === "string") {
    if (turn.first === null) turn.first = performance.now() - turn.begun;
    append(event.delta, /reasoning/.test(type) ? "thought" : "said");
    status("Answering…", "busy");
  }
  if (type === "error") turn.error = event.error || event;
  if (event.response) turn.last = event.response;
}

function append(text, kind) {
  let last = $("answer").lastElementChild;
  if (!last || last.className !== kind) {
    last = el("span", { class: kind }, $("answer").children.length ? "\n\n" : "");
    $("answer").append(last);
  }
  last.append(text);
}

function showOutput(response) {
  for (const item of response.output || []) {
    if (item.type === "message") for (const part of item.content) append(part.text || part.refusal || "", "said");
    else append(JSON.stringify(item), "thought");
  }
}

function conclude(turn) {
  const response = turn.last || {};
  const problem = turn.error || response.error;
  if (problem) { status(`${response.status || "failed"}: ${problem.message}`, "bad"); return; }
  if (!response.status) { status("The stream ended without a terminal event.", "bad"); return; }
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;
  const words = [response.status, `in ${seconds(performance.now() - turn.begun)}`];
  if (turn.first !== null) words.push(`first text after ${seconds(turn.first)}`);
  if (response.usage) words.push(`${response.usage.input_tokens} tokens in, ${response.usage.output_tokens} out`);
  status(words.join(" · "), response.status === "completed" ? "good" : "bad");
}

async function loadModels() {
  const answer = await fetch(`${base}/v1/models`, { headers: headersOfForm() });
  if (!answer.ok) return;
  const ids = (await answer.json()).data.map((model) => model.id);
  $("models").replaceChildren(...ids.map((id) => el("option", { value: id })));
  if (!$("form").elements.model.value && ids.length) $("form").elements.model.value = ids[0];
}

async function start() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(); });
  $("stop").addEventListener("click", () => running && running.abort());
  $("form").elements.key.addEventListener("change", () => loadModels().catch(() => {}));
  await loadModels().catch(() => {});
  try {
    const answer = await fetch(document.body.dataset.document);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    api = await answer.json();
    render();
    const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
    if (target) target.scrollIntoView();
  } catch (error) {
    $("reference").replaceChildren(el("p", { class: "note" }, `The reference could not be loaded: ${error.message}.`));
  }
}

start();
