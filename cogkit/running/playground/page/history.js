// Predictions of this tab, in the page's session storage: without secrets, and without what is too large to keep.

const KEY = "cogkit-playground-history";
const MOST = 30;
const MOST_CHARACTERS = 200_000;

/** The predictions that are kept, newest first. */
export function readHistory(target) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return kept.filter((each) => each.target === target);
  } catch {
    return [];
  }
}

/** Keep a prediction, at the cost of the oldest ones if there is no room. */
export function keep(target, { state, input, secrets, files }) {
  const shown = Object.entries(input)
    .filter(([name]) => !secrets.includes(name))
    .map(([name, value]) => [name, withoutFiles(value, files)]);
  const entry = { target, at: new Date().toISOString(), input: Object.fromEntries(shown), state: bounded(state) };
  let kept = [entry, ...readHistory(target)].slice(0, MOST);
  while (kept.length > 0) {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      kept = kept.slice(0, -1);
    }
  }
}

/** Forget them all. */
export function forget() {
  sessionStorage.removeItem(KEY);
}

function withoutFiles(value, files) {
  if (Array.isArray(value)) return value.filter((each) => !files.has(each));
  return files.has(value) ? null : value;
}

function bounded(state) {
  const { id, status, error, metrics, output, logs, input: _, ...__ } = state;
  const isSmall = JSON.stringify(output ?? null).length <= MOST_CHARACTERS;
  const kept = { id, status, error, metrics, logs: (logs ?? "").slice(-MOST_CHARACTERS) };
  return isSmall ? { ...kept, output } : { ...kept, isOutputTooLarge: true };
}
