// The curl command that does what the form does. Secrets become variables, files are read by the shell.

/** The command for a POST of `input` to the model at `target`. */
export function curlOf({ target, mode, input, secrets, files }) {
  const lines = [`curl ${quoted(`${target}/predictions`)}`, "-H 'Content-Type: application/json'"];
  if (mode === "stream") lines.push("-N", "-H 'Accept: text/event-stream'");
  if (mode === "webhook") lines.push("-H 'Prefer: respond-async'");
  const isPlain = secrets.length === 0 && files.size === 0;
  const body = JSON.stringify({ input: isPlain ? input : hidden(input, secrets, files) }, null, 2);
  if (isPlain) return [...lines, `-d ${quoted(body)}`].join(" \\\n  ");
  // In a here-document there is no limit on length, and the shell puts in what is asked for.
  const escaped = body.replace(/[\\$`]/g, "\\$&").replace(/\uE000([^\uE001]*)\uE001/g, (_, text) => decodeURIComponent(text));
  return `${[...lines, "--data-binary @- <<END"].join(" \\\n  ")}\n${escaped}\nEND`;
}

/** The input with marks in place of secrets and files, characters of private use. */
function hidden(input, secrets, files) {
  const mark = (text) => `\uE000${encodeURIComponent(text)}\uE001`;
  const replaced = (value) => {
    if (Array.isArray(value)) return value.map(replaced);
    if (!files.has(value)) return value;
    const head = value.slice(0, value.indexOf(",") + 1);
    return head + mark(`$(base64 < ${quoted(files.get(value))} | tr -d '\\n')`);
  };
  return Object.fromEntries(
    Object.entries(input).map(([name, value]) => [
      name,
      secrets.includes(name) ? mark(`$${name.toUpperCase().replace(/\W/g, "_")}`) : replaced(value),
    ]),
  );
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
