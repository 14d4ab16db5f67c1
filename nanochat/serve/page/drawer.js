// Whether the list of chats is shown: beside the conversation on a wide screen, as a drawer over it on a
// small one.

import { byId } from "./dom.js";

const wide = matchMedia("(min-width: 60.01rem)");   // the style sheet makes it a drawer up to 60rem
const side = byId("side");

function showSidebar(shown) {
  const isDrawer = shown && !wide.matches;
  side.hidden = !shown;
  byId("menu").ariaExpanded = shown;
  byId("shade").hidden = !isDrawer;
  byId("room").inert = isDrawer;   // the keyboard, too, stays in the drawer
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
  showSidebar(search || side.hidden);
  byId(side.hidden ? "draft" : "search").focus();
}

byId("menu").onclick = () => toggleDrawer();
byId("shade").onclick = dismissDrawer;
wide.onchange = () => showSidebar(wide.matches);
showSidebar(wide.matches);
