// Speaks to the model's server, through the playground's own.

/** An answer that is not a success: its status, and the parts of `detail` that name inputs. */
export class ApiError extends Error {
  constructor(status, body) {
    const detail = body?.detail ?? body?.error ?? `the model answered with status ${status}`;
    const parts = Array.isArray(detail) ? detail : [];
    super(parts.length > 0 ? parts.map(({ loc, msg }) => `${loc?.at(-1) ?? "input"}: ${msg}`).join("\n") : textOf(detail));
    this.status = status;
    this.inputs = new Map(parts.map(({ loc, msg }) => [String(loc?.at(-1)), String(msg)]));
  }
}

const textOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));

async function answerOf(response) {
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { detail: text.slice(0, 2000) };
  }
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

/** GET a document of the model's server (`/openapi.json`), or of the playground's own (`config`). */
export async function getJson(path) {
  return answerOf(await fetch(path.startsWith("/") ? `api${path}` : path));
}

/** An id as Cog advises: 26 characters of base 32. */
export function newPredictionId() {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  return Array.from(crypto.getRandomValues(new Uint8Array(26)), (each) => letters[each % 32]).join("");
}

/** Ask the model to stop; false if it knows no such prediction. */
export async function cancelPrediction(id) {
  const response = await fetch(`api/predictions/${id}/cancel`, { method: "POST" });
  return response.ok;
}

function put(id, request, headers, signal) {
  return fetch(`api/predictions/${id}`, {
    method: "PUT",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(request),
    signal,
  });
}

/** Run a prediction and give each state of it to `onState`; the last is the end. */
export const runPrediction = {
  async wait({ id, input, signal, onState }) {
    onState(await answerOf(await put(id, { input }, {}, signal)));
  },

  async stream({ id, input, signal, onState }) {
    const response = await put(id, { input }, { Accept: "text/event-stream" }, signal);
    if (!response.ok) return void (await answerOf(response));
    let state = { id, status: "processing", output: [], logs: "", metrics: {} };
    for await (const { event, data } of eventsOf(response.body)) {
      const value = JSON.parse(data);
      if (event === "error") throw new Error(value.error ?? value.detail ?? "the stream ended with an error");
      state = nextState(state, event, value);
      onState(state);
      if (event === "completed") return undefined;
    }
    throw new Error("The connection to the model ended before the prediction did.");
  },

  webhook({ id, input, signal, onState, onDelivery, webhooks }) {
    return new Promise((resolve, reject) => {
      const source = new EventSource(`events/${id}`);
      const end = (act, value) => {
        source.close();
        act(value);
      };
      signal.addEventListener("abort", () => end(reject, signal.reason));
      source.addEventListener("message", ({ data }) => {
        const state = JSON.parse(data);
        onDelivery();
        onState(state);
        if (isOver(state)) end(resolve);
      });
      source.addEventListener("open", once(async () => {
        try {
          const request = { input, webhook: webhooks + id };
          onState(await answerOf(await put(id, request, { Prefer: "respond-async" }, signal)));
        } catch (error) {
          end(reject, error);
        }
      }));
    });
  },
};

/** Whether a prediction has reached its end. */
export function isOver({ status }) {
  return ["succeeded", "failed", "canceled"].includes(status);
}

function once(act) {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    act();
  };
}

function nextState(state, event, value) {
  switch (event) {
    case "output":
      state.output.push(value.chunk);
      return state;
    case "log":
      return { ...state, logs: state.logs + value.data };
    case "metric":
      return { ...state, metrics: { ...state.metrics, [value.name]: value.value } };
    case "completed":
      return { ...state, ...value, logs: value.logs || state.logs, metrics: { ...state.metrics, ...value.metrics } };
    default:
      return { ...state, ...value };
  }
}

/** The server-sent events of a body, as {event, data}. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const found = { event: "message", data: [] };
      for (const line of block.split("\n")) {
        const [, name, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (name === "event") found.event = text;
        if (name === "data") found.data.push(text);
      }
      if (found.data.length > 0) yield { event: found.event, data: found.data.join("\n") };
    }
  }
}
