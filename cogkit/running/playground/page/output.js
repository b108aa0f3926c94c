// Shows what a model gave: text, pictures, sound, films, other files, lists and objects.

import { element } from "./dom.js";
import { sizeOf } from "./form.js";

const EXTENSIONS = {
  image: ["png", "jpg", "jpeg", "gif", "webp", "svg", "avif", "bmp"],
  audio: ["mp3", "wav", "ogg", "oga", "flac", "m4a", "aac", "opus"],
  video: ["mp4", "webm", "mov", "mkv", "ogv", "m4v"],
};

const shownIn = new WeakMap();

/** Show an output in `place`; what is there already stays as it is, so that films play on and text only grows. */
export function showOutput(place, output, schema) {
  const parts = partsOf(output, schema);
  const before = shownIn.get(place) ?? [];
  parts.forEach((part, index) => {
    const node = place.children[index];
    if (node === undefined) place.append(nodeOf(part));
    else if (isText(part) && isText(before[index]) && part.startsWith(before[index])) {
      if (part !== before[index]) node.append(part.slice(before[index].length));
    } else if (part !== before[index]) node.replaceWith(nodeOf(part));
  });
  while (place.children.length > parts.length) place.lastElementChild.remove();
  shownIn.set(place, parts);
}

/** The parts of an output that are shown for themselves. */
function partsOf(output, schema) {
  if (output === undefined || output === null) return [];
  if (!Array.isArray(output)) return [output];
  if (schema["x-cog-array-display"] === "concatenate") return [output.join("")];
  return output.some((each) => typeof each === "string") ? output : [output];
}

const isText = (value) => typeof value === "string" && fileOf(value) === undefined;

function nodeOf(value) {
  if (typeof value === "string") return fileNode(value) ?? element("pre", { className: "text", tabIndex: 0 }, value);
  if (value !== null && typeof value === "object" && hasFile(value)) {
    const rows = Object.entries(value).flatMap(([name, each]) => [element("dt", {}, name), element("dd", {}, nodeOf(each))]);
    return element("dl", {}, ...rows);
  }
  return element("pre", { className: "json", tabIndex: 0 }, JSON.stringify(value, null, 2));
}

function hasFile(value) {
  return Object.values(value).some((each) =>
    typeof each === "string" ? fileOf(each) !== undefined : each !== null && typeof each === "object" && hasFile(each),
  );
}

/** What a text is if it is a file: {kind, name, size?}. */
function fileOf(text) {
  const data = /^data:([\w.+-]+\/[\w.+-]+)?[^,]{0,200},/.exec(text);
  if (data !== null) {
    const [type, ending] = (data[1] ?? "text/plain").split("/");
    const length = text.length - data[0].length - /={0,2}$/.exec(text.slice(-2))[0].length;
    const size = data[0].endsWith(";base64,") ? Math.floor((length * 3) / 4) : length;
    const extension = { jpeg: "jpg", "svg+xml": "svg", mpeg: type === "audio" ? "mp3" : "mpeg", plain: "txt" }[ending];
    return { kind: type, name: `output.${extension ?? ending.replace(/^x-/, "")}`, size };
  }
  if (!/^https?:\/\/\S+$/.test(text)) return undefined;
  const path = URL.canParse(text) ? new URL(text).pathname : "";
  const extension = path.split(".").pop().toLowerCase();
  const kind = Object.keys(EXTENSIONS).find((each) => EXTENSIONS[each].includes(extension));
  return { kind: kind ?? "link", name: path.split("/").pop() || text };
}

function fileNode(text) {
  const file = fileOf(text);
  if (file === undefined) return undefined;
  const size = file.size === undefined ? "" : ` (${sizeOf(file.size)})`;
  const link = element("a", { href: text, download: file.name, rel: "noreferrer" }, `Download ${file.name}${size}`);
  if (file.size === undefined) Object.assign(link, { target: "_blank", textContent: text });
  const shown = {
    image: () => element("img", { src: text, alt: `Output: ${file.name}` }),
    audio: () => element("audio", { src: text, controls: true, "aria-label": `Output: ${file.name}` }),
    video: () => element("video", { src: text, controls: true, "aria-label": `Output: ${file.name}` }),
  }[file.kind];
  return element("figure", {}, ...(shown === undefined ? [] : [shown()]), element("figcaption", {}, link));
}
