// Whether the list of chats is shown: beside the conversation on a wide screen, as a drawer over it on a
// small one.

import { byId } from "./dom.js";

const wide = matchMedia("(min-width: 60.01rem)");   // the style sheet makes it a drawer up to 60rem

function showSidebar(shown) {
  const isDrawer = shown && !wide.matches;
  byId("side").hidden = !shown;
  byId("menu").ariaExpanded = shown;
  byId("shade").hidden = !isDrawer;
  byId("room").inert = isDrawer;   // the keyboard, too, stays in the drawer
}

export function drawerIsOpen() {
  return byId("room").inert;
}

/** On a small screen, where it covers the conversation. */
export function closeDrawer() {
  if (!wide.matches) showSidebar(false);
}

/** By hand: the focus goes back to the button that opened it. */
export function dismissDrawer() {
  closeDrawer();
  byId("menu").focus();
}

/** Show the list, or hide it; with `search` it is shown in any case. */
export function toggleDrawer(search = false) {
  showSidebar(search || byId("side").hidden);
  if (byId("side").hidden) byId("draft").focus();
  else byId("search").focus();
}

export function startDrawer() {
  byId("menu").onclick = () => toggleDrawer();
  byId("shade").onclick = dismissDrawer;
  wide.onchange = () => showSidebar(wide.matches);
  showSidebar(wide.matches);
}
