// The page: joins the form, the model's server, the output and the history. Everything that happens starts here.

import { ApiError, cancelPrediction, getJson, isOver, newPredictionId, runPrediction } from "./api.js";
import { curlOf } from "./curl.js";
import { byId, element } from "./dom.js";
import { InputForm } from "./form.js";
import { forget, keep, readHistory } from "./history.js";
import { showOutput } from "./output.js";
import { readModel } from "./schema.js";

const HEALTH = {
  STARTING: ["The model is starting", "starting"],
  READY: ["The model is ready", "ready"],
  BUSY: ["The model is busy", "ready"],
  SETUP_FAILED: ["The model's setup failed", "failed"],
  DEFUNCT: ["The model has stopped for good", "failed"],
  UNHEALTHY: ["The model says that it is not healthy", "failed"],
};
const STATUS = {
  starting: "Starting",
  processing: "Running",
  succeeded: "Succeeded",
  failed: "Failed",
  canceled: "Canceled",
};
const WEBHOOK_PATIENCE = 10_000;

let config = { target: "", webhooks: "" };
let model;
let schemaText = "";
let isLookDue = true;
let form;
let running;

const setText = (id, text) => {
  // What is read aloud again must have changed.
  if (byId(id).textContent !== text) byId(id).textContent = text;
};
const modeOf = () => new FormData(byId("form")).get("mode") ?? "wait";

async function start() {
  config = await getJson("config");
  setText("target", config.target);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  // A file that is dropped beside its place must not replace the page.
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  byId("cancel").addEventListener("click", cancel);
  byId("reset").addEventListener("click", () => form.reset());
  byId("curl-box").addEventListener("toggle", showCurl);
  for (const name of ["input", "change"]) byId("form").addEventListener(name, showCurl);
  byId("copy").addEventListener("click", copyCurl);
  byId("forget").addEventListener("click", () => {
    forget();
    showHistory();
    byId("history-title").focus();
  });
  showHistory();
  watchHealth();
}

async function watchHealth() {
  for (;;) {
    let pause = 2000;
    try {
      const health = await getJson("/health-check");
      const [text, state] = HEALTH[health.status] ?? [`The model is ${health.status}`, "starting"];
      if (isLookDue && state !== "failed") await loadModel();
      showHealth(text, state);
      if (state === "failed") showLogs(health.setup?.logs ?? health.user_healthcheck_error ?? "");
      if (state === "ready") pause = 5000;
    } catch (error) {
      // What answers next may be another model.
      isLookDue = true;
      showHealth(error instanceof ApiError ? "No model answers" : "The playground has ended", "failed");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function showHealth(text, state) {
  setText("health", text);
  byId("health").dataset.state = state;
}

async function loadModel() {
  const schema = await getJson("/openapi.json");
  isLookDue = false;
  if (JSON.stringify(schema) === schemaText) return;
  schemaText = JSON.stringify(schema);
  model = readModel(schema);
  form = new InputForm(byId("fields"), model.fields, { onChange: showCurl });
  byId("mode-stream").hidden = !model.streams;
  const preferred = model.streams ? "stream" : "wait";
  byId("modes").querySelector(`[value="${preferred}"]`).checked = true;
  byId("reset").disabled = false;
  byId("run").disabled = running !== undefined;
  showCurl();
}

async function run() {
  if (form === undefined || running !== undefined) return;
  showProblem("");
  if (!form.check()) return;
  const abort = new AbortController();
  const mode = modeOf();
  running = { id: newPredictionId(), mode, abort, state: { status: "starting" } };
  const mine = running;
  byId("run").disabled = true;
  byId("cancel").disabled = false;
  showOutput(byId("output"), undefined, {});
  show(mine.state);
  const hint = setTimeout(() => {
    if (mode === "webhook" && running === mine && !mine.hasDelivery) {
      showProblem(`No webhook has come so far: the model may not reach ${config.webhooks}. See --host and --webhook-host.`);
    }
  }, WEBHOOK_PATIENCE);
  let entered;
  try {
    entered = await form.read();
    await runPrediction[mode]({
      ...{ id: mine.id, input: entered.input, signal: abort.signal, webhooks: config.webhooks },
      onDelivery: () => (mine.hasDelivery = true),
      onState({ input: _, ...state }) {
        // A webhook may come before the answer to the request does, which then is old.
        if (isOver(mine.state) || (mine.hasDelivery && state.status === "starting")) return;
        mine.state = { ...mine.state, ...state };
        showSoon(mine);
      },
    });
  } catch (error) {
    if (abort.signal.aborted) mine.state = { ...mine.state, status: "canceled" };
    else fail(mine, error);
  } finally {
    clearTimeout(hint);
    clearTimeout(mine.timer);
    show(mine.state);
    if (entered !== undefined) keep(config.target, { state: mine.state, ...entered });
    finish();
  }
}

function fail(mine, error) {
  mine.state = { ...mine.state, status: "failed", error: error.message };
  if (error instanceof ApiError && error.inputs.size > 0 && !form.mark(error.inputs)) {
    showProblem("The model does not take this input; see the marked fields.");
  }
}

function finish() {
  const hadFocus = document.activeElement === byId("cancel");
  running = undefined;
  byId("run").disabled = false;
  byId("cancel").disabled = true;
  if (hadFocus) byId("run").focus();
  showHistory();
}

async function cancel() {
  const mine = running;
  if (mine === undefined) return;
  setText("status", "Canceling");
  let isKnown = false;
  try {
    isKnown = await cancelPrediction(mine.id);
  } catch {
    // Then there is nobody who could tell us of the end either.
  }
  if (!isKnown && running === mine) mine.abort.abort();
}

/** Show a state with others that come at the same time, as tokens do. */
function showSoon(mine) {
  mine.timer ??= setTimeout(() => {
    mine.timer = undefined;
    show(mine.state);
  }, 30);
}

function show(state) {
  const isRunning = !isOver(state);
  const note = state.isOutputTooLarge ? "; the output was too large to keep" : "";
  setText("status", `${STATUS[state.status] ?? state.status}${note}`);
  byId("status").dataset.state = state.status === "starting" ? "processing" : state.status;
  byId("output").setAttribute("aria-busy", String(isRunning));
  showOutput(byId("output"), state.output, model?.output ?? {});
  byId("error").hidden = !state.error;
  setText("error", String(state.error ?? ""));
  showLogs(state.logs ?? "");
  const metrics = Object.entries(state.metrics ?? {});
  byId("metrics-box").hidden = metrics.length === 0;
  byId("metrics").replaceChildren(
    ...metrics.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, metricText(name, value))]),
  );
  byId("raw-box").hidden = isRunning;
  setText("raw", isRunning ? "" : JSON.stringify(state, shortened, 2));
}

const metricText = (name, value) =>
  name === "predict_time" && typeof value === "number" ? `${value.toFixed(3)} s` : JSON.stringify(value);
const shortened = (_, value) =>
  typeof value === "string" && value.startsWith("data:") && value.length > 200 ? `${value.slice(0, 100)}…` : value;

function showLogs(text) {
  byId("logs-box").hidden = text === "";
  const logs = byId("logs");
  const isAtEnd = logs.scrollHeight - logs.scrollTop - logs.clientHeight < 40;
  setText("logs", text);
  if (isAtEnd) logs.scrollTop = logs.scrollHeight;
}

function showProblem(text) {
  setText("problem", text);
  byId("problem").hidden = text === "";
}

async function showCurl() {
  if (form === undefined || !byId("curl-box").open) return;
  byId("curl").textContent = curlOf({ target: config.target, mode: modeOf(), ...(await form.read()) });
}

async function copyCurl() {
  await navigator.clipboard.writeText(byId("curl").textContent);
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
}

function showHistory() {
  const kept = readHistory(config.target);
  byId("history-empty").hidden = kept.length > 0;
  byId("forget").hidden = kept.length === 0;
  byId("history").replaceChildren(...kept.map((entry) => element("li", {}, historyButton(entry))));
}

function historyButton(entry) {
  const time = new Date(entry.at).toLocaleTimeString();
  const words = JSON.stringify(entry.input);
  const input = words.length > 80 ? `${words.slice(0, 80)}…` : words;
  const button = element("button", { type: "button" }, `${time} · ${STATUS[entry.state.status] ?? ""} · ${input}`);
  button.addEventListener("click", () => {
    if (running !== undefined) {
      showProblem("A prediction is running; cancel it first, or wait for its end.");
      return;
    }
    form?.write(entry.input);
    showProblem("");
    showOutput(byId("output"), undefined, {});
    show(entry.state);
    showCurl();
  });
  return button;
}

start();
