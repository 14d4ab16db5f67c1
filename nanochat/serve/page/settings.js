// The settings: what the user has chosen, kept in this browser, and the dialog that shows it.

import { byId, element } from "./dom.js";
import { longestAnswer, redraw, setting, state } from "./state.js";
import { readStored, writeStored } from "./storage.js";

export const KEY = "nanochat.settings";
const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "seed", "max_tokens"];

/** Change some settings, keep them, and let them show. Another tab may have changed others. */
export function keepSettings(changes) {
  state.settings = { ...state.settings, ...readStored(KEY), ...changes };
  writeStored(KEY, state.settings);
  applySettings();
}

/** Take over what is kept, which another tab may have changed. */
export function readSettings() {
  state.settings = readStored(KEY) ?? {};
  applySettings();
}

/** To be called, too, when the server has said which models there are. */
export function applySettings() {
  document.documentElement.style.colorScheme = state.settings.theme ?? "";   // "": as the system
  state.model = state.models.find(model => model.id === state.settings.choice) ?? state.models[0] ?? null;
  if (state.model) byId("model").textContent = state.model.id.replace(/^nanochat-/, "");
  byId("shown").textContent = setting("temperature") ?? "";
}

export function openSettings() {
  for (const id of [...NUMBERS, "system", "theme", "api_key"]) byId(id).value = setting(id) ?? "";
  byId("choice").replaceChildren(...state.models.map(model => element("option", model.id)));
  byId("choice").value = state.model?.id;
  byId("max_tokens").max = longestAnswer();
  byId("max_tokens").value = Math.min(setting("max_tokens"), longestAnswer()) || "";
  byId("room-for").textContent = longestAnswer();
  if (!byId("settings").open) byId("settings").showModal();
}

function takeInput({ target }) {
  const { id, value, validity } = target;
  if (!NUMBERS.includes(id)) keepSettings({ [id]: value.trim() });
  else if (validity.valid) keepSettings({ [id]: value ? +value : undefined });   // nothing: the server's default
}

function backToDefaults() {
  const { api_key, theme } = state.settings;   // these are not the model's
  writeStored(KEY, { api_key, theme });
  readSettings();
  openSettings();
}

/** `closed` is called when the dialog is. */
export function startSettings(closed) {
  readSettings();
  byId("open-settings").onclick = openSettings;
  byId("done").onclick = () => byId("settings").close();
  byId("reset").onclick = backToDefaults;
  byId("settings").oninput = takeInput;
  byId("settings").onchange = takeInput;
  byId("settings").onclose = () => {
    byId("draft").focus();
    redraw();
    closed();
  };
}
