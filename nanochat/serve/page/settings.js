// The settings: what the user has chosen, kept in this browser, and the dialog that shows it.

import { byId, element } from "./dom.js";
import { redraw, setting, state } from "./state.js";
import { readStored, writeStored } from "./storage.js";

const KEY = "nanochat.settings";
export const NUMBERS = ["temperature", "top_k", "max_tokens"];   // sent with every question

/** Change some settings, keep them, and let them show. */
export function keepSettings(changes) {
  Object.assign(state.settings, changes);
  writeStored(KEY, state.settings);
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
  for (const id of [...NUMBERS, "theme", "api_key"]) byId(id).value = setting(id) ?? "";
  byId("choice").replaceChildren(...state.models.map(model => element("option", model.id)));
  byId("choice").value = state.model?.id;
  const longest = state.model ? state.model.max_model_len - 1 : "";   // a question has one token at least
  byId("max_tokens").max = longest;
  byId("room-for").textContent = longest;
  if (!byId("settings").open) byId("settings").showModal();
}

function takeInput({ target }) {
  const { id, value, validity } = target;
  if (!NUMBERS.includes(id)) keepSettings({ [id]: value.trim() });
  else if (value && validity.valid) keepSettings({ [id]: +value });
}

function backToDefaults() {
  const { api_key, theme } = state.settings;   // these are not the model's
  state.settings = { api_key, theme };
  keepSettings({});
  openSettings();
}

/** `closed` is called when the dialog is. */
export function startSettings(closed) {
  state.settings = readStored(KEY) ?? {};
  applySettings();
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
