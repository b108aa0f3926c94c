// The form: a control for each input of the model, and what was entered as JSON.
//
// A control is {node, focus(), read(), write(value), fault(), invalid(message)}. `read` gives undefined for "leave it
// to the model"; `fault` says in words why what was entered cannot be sent, or nothing.

import { element } from "./dom.js";
import { limitsOf } from "./schema.js";

let count = 0;
const newId = (word) => `${word}-${(count += 1)}`;

/** The form of a model's inputs, put into `place`. */
export class InputForm {
  constructor(place, fields, { onChange }) {
    this.controls = fields.map((field) => [field, fieldControl(field, onChange)]);
    const none = element("p", { className: "hint" }, "This model takes no input.");
    place.replaceChildren(...(fields.length > 0 ? this.controls.map(([, control]) => control.node) : [none]));
    this.reset();
  }

  /** What is entered, as {input, secrets, files}; `files` leads from each data URL to its file's name. */
  async read() {
    const [input, secrets, files] = [{}, [], new Map()];
    for (const [field, control] of this.controls) {
      const value = await control.read(files);
      if (value === undefined) continue;
      input[field.name] = value;
      if (field.kind === "secret" || field.item?.kind === "secret") secrets.push(field.name);
    }
    return { input, secrets, files };
  }

  /** Enter values again; what is missing gets its default. */
  write(input) {
    for (const [field, control] of this.controls) {
      control.invalid("");
      control.write(Object.hasOwn(input, field.name) ? input[field.name] : field.default);
    }
  }

  reset() {
    this.write({});
  }

  /** Mark what cannot be sent, and go to the first of it; false if there is any. */
  check() {
    return this.mark(new Map(this.controls.map(([field, control]) => [field.name, control.fault()])));
  }

  /** Show messages at the inputs of these names, and go to the first; true if there is none. */
  mark(messages) {
    let first;
    for (const [field, control] of this.controls) {
      const message = messages.get(field.name) ?? "";
      control.invalid(message);
      if (message !== "") first ??= control;
    }
    first?.focus();
    return first === undefined;
  }
}

function fieldControl(field, onChange) {
  const id = newId("input");
  const isGroup = field.kind === "list" || field.kind === "file";
  const control = valueControl({ ...field, id, name: field.name, onChange });
  const notes = [field.isRequired ? "required" : "", field.isDeprecated ? "deprecated" : "", limitsOf(field)];
  const note = notes.filter((each) => each !== "").join(" · ");
  const label = element(isGroup ? "legend" : "label", { for: isGroup ? undefined : id }, field.name);
  if (note !== "") label.append(" ", element("span", { className: "note" }, note));
  const hint = element("p", { className: "hint", id: `${id}-hint`, hidden: field.description === "" }, field.description);
  const fault = element("p", { className: "fault", id: `${id}-fault`, hidden: true });
  const described = `${hint.id} ${fault.id}`;
  const node = element(isGroup ? "fieldset" : "div", { className: "field" }, label, hint, control.node, fault);
  (isGroup ? node : control.main).setAttribute("aria-describedby", described);
  return {
    ...control,
    node,
    fault: () => control.fault(),
    invalid(message) {
      fault.textContent = message;
      fault.hidden = message === "";
      if (message === "") control.main.removeAttribute("aria-invalid");
      else control.main.setAttribute("aria-invalid", "true");
    },
  };
}

function valueControl(field) {
  const makers = { boolean, number, choice, file, secret, text, list, json };
  return makers[field.kind](field);
}

function simple(main, { read, write, fault = () => "" }) {
  return { node: main, main, focus: () => main.focus(), read, write, fault };
}

const MISSING = "This input is required.";

function boolean(field) {
  if (field.isRequired || typeof field.default === "boolean") {
    const main = element("input", { type: "checkbox", id: field.id });
    return simple(main, { read: () => main.checked, write: (value) => (main.checked = value === true) });
  }
  return choice({ ...field, choices: [true, false] });
}

function number(field) {
  const { schema } = field;
  const main = element("input", {
    type: "number",
    id: field.id,
    required: field.isRequired,
    step: schema.type === "integer" ? "1" : "any",
    min: schema.minimum ?? "",
    max: schema.maximum ?? "",
  });
  return simple(main, {
    read: () => (main.value === "" ? undefined : Number(main.value)),
    write: (value) => (main.value = value ?? ""),
    fault() {
      if (main.validity.badInput) return "This is not a number.";
      if (main.validity.valueMissing) return MISSING;
      if (main.validity.rangeUnderflow) return `This must be at least ${schema.minimum}.`;
      if (main.validity.rangeOverflow) return `This must be at most ${schema.maximum}.`;
      if (main.validity.stepMismatch) return "This must be a whole number.";
      return "";
    },
  });
}

function choice(field) {
  const main = element("select", { id: field.id, required: field.isRequired });
  main.append(element("option", { value: "" }, field.isRequired ? "Choose one" : "not set"));
  field.choices.forEach((each, index) => main.append(element("option", { value: String(index) }, String(each))));
  return simple(main, {
    read: () => (main.value === "" ? undefined : field.choices[Number(main.value)]),
    write(value) {
      const index = field.choices.indexOf(value);
      main.value = index < 0 ? "" : String(index);
    },
    fault: () => (field.isRequired && main.value === "" ? MISSING : ""),
  });
}

function text(field) {
  const main = element("textarea", { id: field.id, rows: 1, required: field.isRequired, spellcheck: false });
  return simple(main, {
    // Emptying what has a default means an empty text.
    read: () => (main.value === "" && !field.isRequired && !field.default ? undefined : main.value),
    write: (value) => (main.value = value ?? ""),
    fault() {
      if (main.value === "") return field.isRequired ? MISSING : "";
      const length = [...main.value].length;
      if (length < (field.schema.minLength ?? 0)) return `This needs at least ${field.schema.minLength} characters.`;
      if (length > (field.schema.maxLength ?? length)) return `This can have ${field.schema.maxLength} characters.`;
      return "";
    },
  });
}

function secret(field) {
  const main = element("input", { type: "password", id: field.id, required: field.isRequired, autocomplete: "off" });
  return simple(main, {
    read: () => (main.value === "" ? undefined : main.value),
    write: (value) => (main.value = value ?? ""),
    fault: () => (field.isRequired && main.value === "" ? MISSING : ""),
  });
}

function json(field) {
  const main = element("textarea", { id: field.id, className: "json", rows: 2, spellcheck: false });
  const parsed = () => {
    try {
      return { value: JSON.parse(main.value) };
    } catch (error) {
      return field.takesText ? { value: main.value } : { fault: `This is not JSON: ${error.message}` };
    }
  };
  return simple(main, {
    read: () => (main.value.trim() === "" ? undefined : parsed().value),
    write: (value) => (main.value = value === undefined || value === null ? "" : JSON.stringify(value, null, 2)),
    fault: () => (main.value.trim() === "" ? (field.isRequired ? MISSING : "") : (parsed().fault ?? "")),
  });
}

function file(field) {
  let chosen;
  let data;
  const picker = element("input", { type: "file", id: field.id, "aria-label": `${field.name}: file` });
  const url = element("input", { type: "url", id: newId("url"), placeholder: "https://", spellcheck: false });
  const shown = element("p", { className: "chosen", hidden: true });
  const clear = element("button", { type: "button", hidden: true }, "Remove the file");
  const label = element("label", { for: url.id }, `${field.name}: or a URL`);
  const node = element("div", { className: "drop" }, picker, " or drop one here", shown, clear, label, url);
  const show = (given) => {
    [chosen, data] = [given, undefined];
    shown.hidden = clear.hidden = given === undefined;
    shown.textContent = given === undefined ? "" : `${given.name} (${sizeOf(given.size)})`;
    if (given !== undefined) url.value = "";
    field.onChange();
  };
  picker.addEventListener("change", () => show(picker.files[0] ?? chosen));
  clear.addEventListener("click", () => {
    picker.value = "";
    show(undefined);
    picker.focus();
  });
  url.addEventListener("input", () => {
    if (url.value !== "" && chosen !== undefined) {
      picker.value = "";
      show(undefined);
    }
  });
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  for (const name of ["dragenter", "dragover"]) {
    node.addEventListener(name, (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      node.classList.add("over");
    });
  }
  node.addEventListener("dragleave", () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => {
    node.classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) show(event.dataTransfer.files[0]);
  });
  return {
    node,
    main: picker,
    focus: () => picker.focus(),
    async read(files) {
      if (chosen === undefined) return url.value === "" ? undefined : url.value;
      const { name } = chosen;
      data ??= dataUrlOf(chosen);
      const text = await data;
      files.set(text, name);
      return text;
    },
    write(value) {
      picker.value = "";
      url.value = typeof value === "string" && !value.startsWith("data:") ? value : "";
      show(undefined);
    },
    fault: () => (field.isRequired && chosen === undefined && url.value === "" ? MISSING : ""),
  };
}

function list(field) {
  let items = [];
  const rows = element("div");
  const add = element("button", { type: "button", id: field.id }, `Add to ${field.name}`);
  const node = element("div", {}, rows, add);
  const append = (value) => {
    const id = newId("item");
    const control = valueControl({ ...field.item, id, name: `${field.name} item`, isRequired: true, onChange: field.onChange });
    const remove = element("button", { type: "button" }, "Remove");
    const row = element("div", { className: "item" }, control.node, remove);
    const item = { row, control, remove };
    remove.addEventListener("click", () => {
      const index = items.indexOf(item);
      items.splice(index, 1);
      row.remove();
      renumber();
      (items[Math.min(index, items.length - 1)]?.remove ?? add).focus();
      field.onChange();
    });
    rows.append(row);
    items.push(item);
    control.write(value);
    renumber();
    return control;
  };
  const renumber = () =>
    items.forEach(({ control, remove }, index) => {
      control.main.setAttribute("aria-label", `${field.name}, item ${index + 1}`);
      remove.setAttribute("aria-label", `Remove item ${index + 1} of ${field.name}`);
    });
  add.addEventListener("click", () => {
    append(undefined).focus();
    field.onChange();
  });
  return {
    node,
    main: add,
    focus: () => (items.find(({ control }) => control.fault() !== "")?.control ?? add).focus(),
    async read(files) {
      if (items.length === 0 && !field.isRequired && !field.default?.length) return undefined;
      const values = [];
      for (const { control } of items) values.push(await control.read(files));
      return values.filter((each) => each !== undefined);
    },
    write(values) {
      items = [];
      rows.replaceChildren();
      for (const value of Array.isArray(values) ? values : []) append(value);
    },
    fault() {
      const index = items.findIndex(({ control }) => control.fault() !== "");
      return index < 0 ? "" : `Item ${index + 1}: ${items[index].control.fault()}`;
    },
  };
}

function dataUrlOf(given) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      // Of a file without a known type, browsers may leave the type out.
      const data = reader.result;
      resolve(data.startsWith("data:;") ? `data:application/octet-stream${data.slice(5)}` : data);
    });
    reader.addEventListener("error", () => reject(new Error(`${given.name} cannot be read`)));
    reader.readAsDataURL(given);
  });
}

/** A number of bytes in words. */
export function sizeOf(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  let size = bytes;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}
