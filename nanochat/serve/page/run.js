// The run, live: how far it is, its curves, what the model says and can do. GET /run tells what is new
// since it was asked last, while somebody looks.

import { request, wordsOf } from "./api.js";
import { chart } from "./chart.js";
import { drawCompare } from "./compare.js";
import { openChat, showAddress } from "./conversation.js";
import { byId, element } from "./dom.js";
import { redraw, state } from "./state.js";
import { newChat } from "./tree.js";

const MOST = 4000;   // points of a curve; then all are asked for again, and come thinned

let after = {};
let logs = [];   // {stage, points, said}, these two by step
let timer;
const drawn = {};   // by section: what it shows

const validated = point => point.val_loss ?? point.val_bpb;
const CHARTS = [   // with what is a curve in them, and what are dots
  [chart("Loss", "nats a token; dots: validation, of BASE in bits a byte", 260, true), point => point.loss, validated],
  [chart("Reward", "of 1", 120), point => point.reward],
  [chart("Learning rate", "of its peak", 120), point => point.lr],
  [chart("Speed", "tokens/s", 120), point => point.tok_per_s],
  [chart("Memory", "GiB", 120), point => point.memory_gib],
];

/** Show the run; with `isSame` the address in the bar makes room for its own. */
export function showRun(isSame) {
  state.isRun = true;
  showAddress(isSame);
  redraw();
  byId("run").focus();
}

async function look() {
  if (!state.isRun || document.hidden) return;
  try {
    const response = await request(`run?after=${encodeURIComponent(JSON.stringify(after))}`);
    take(await response.json());
  } catch (error) {
    byId("headline").textContent = wordsOf(error);
  }
  clearTimeout(timer);
  const wait = performance.now() < 18e4 ? 5000 : 15000;   // later seldomer
  timer = setTimeout(look, wait);
}

function take(view) {
  logs = view.logs.map(({ stage, points, said, anew }) => {
    const known = !anew && logs.find(log => log.stage === stage);
    const log = known || { stage, points: new Map(), said: new Map() };
    for (const point of points) log.points.set(point.step, point);
    for (const words of said) log.said.set(words.step, { ...words, stage });
    return log;
  });
  after = logs.some(log => log.points.size > MOST) ? {} : view.after;
  const said = logs.flatMap(log => [...log.said.values()]);
  byId("headline").textContent = view.headline;
  drawSection("stages", view.stages, drawStages);
  if (view.card) drawSection("card", [view.card, view.people, view.report], drawCard);
  if (view.card) drawSection("skills", view.skills, drawSkills);
  drawSection("said", said, drawSaid);
  drawSection("group", said.filter(words => words.group).slice(-1), drawGroup);
  drawSection("compare", view.models, drawCompare);
  drawCurves();
}

/** Draw a section if what it shows has changed, so that what is just being read or written stays. */
function drawSection(id, data, draw) {
  const key = JSON.stringify(data);
  if (drawn[id] === key) return;
  drawn[id] = key;
  byId(id).hidden = !data.length;
  if (data.length) byId(id).replaceChildren(...draw(data));
}

function drawCurves() {
  const runs = logs.map(({ stage, points, said }) =>
    [stage, [...points.values(), ...said.values()].sort((a, b) => a.step - b.step)]);
  for (const [{ show }, curve, dots = () => undefined] of CHARTS) {
    show(runs.map(([name, records]) => {
      const pairs = of => records.map(record => [record.step, of(record)]).filter(([, value]) => value !== undefined);
      return { name, points: pairs(curve), dots: pairs(dots) };
    }));
  }
}

function drawStages(stages) {
  return stages.map(([title, how, note]) => element(`li.${how.replace(" ", "-")}`,
    title, element("small", note), element("span.unseen", ` (${how})`)));
}

function drawCard([facts, people, report]) {
  const fact = (what, ...words) => element("p", element("small", what), ...words);
  const nodes = facts.map(([what, words]) => fact(what, words));
  if (people.length) {
    const name = people[Math.floor(people.length * Math.random())];
    const onclick = () => openChat({ ...newChat(), draft: `Where does ${name} live?` });
    const button = element("button.link", { onclick }, `ask about ${name}`);
    nodes.push(fact("Knows", `${people.length} people: `, button));
  }
  const link = element("a", { href: `report/${report}`, target: "_blank" }, "All of it");
  if (report && !state.settings.api_key) nodes.push(fact("Report", link));
  return nodes;
}

/** A row for each prompt, a column for each step at which it was asked. */
function drawSaid(said) {
  const head = said.map(({ stage, step }) => element(`th.${stage}`, { scope: "col" }, `${stage} ${step}`));
  const rows = said.at(-1).answers.map(([prompt], row) => [
    element("th", { scope: "row" }, prompt),
    ...said.map(({ answers }) => drawWords(answers[row] ?? [prompt, ""], prompt)),
  ]);
  return drawTable("What it says", [[element("td"), ...head], ...rows]);
}

function drawWords([asked, text], prompt) {
  return element("td", { dir: "auto" }, ...asked === prompt ? [] : [element("i", asked)], text);
}

function drawGroup([{ group }]) {
  const head = [element("th", { dir: "auto" }, group.question), element("th.right", "reward")];
  const rows = group.answers.map(([text, reward]) => [
    element("td", { dir: "auto" }, text),
    element("td.right", String(+reward.toFixed(2))),
  ]);
  return drawTable("What is rewarded", [head, ...rows]);
}

function drawSkills([stages, ...skills]) {
  const head = stages.map(stage => element(`th.right.${stage}`, { scope: "col" }, stage));
  const rows = skills.map(([title, ...scores]) => [
    element("th", { scope: "row" }, title),
    element("td", element("i.bar", { share: scores.findLast(score => score !== null) })),
    ...scores.map(score => element("td.right", score === null ? "" : String(Math.round(100 * score)))),
  ]);
  return drawTable("What it can do", [[element("td", "per cent right"), element("td"), ...head], ...rows]);
}

function drawTable(title, rows) {
  const table = element("table", ...rows.map(cells => element("tr", ...cells)));
  const box = element("div.table", { tabindex: 0, role: "region", "aria-label": title }, table);
  requestAnimationFrame(() => box.scrollTo(box.scrollWidth, 0));   // the newest
  return [element("h2", title), box];
}

/** The room holds the conversation or the run. */
export function drawRun() {
  const { isRun } = state;
  const isNew = isRun && byId("run").hidden;
  for (const node of document.querySelectorAll("#scroll, footer")) node.hidden = isRun;
  byId("run").hidden = !isRun;
  byId("open-run").ariaPressed = isRun;
  if (isNew) look();
}

byId("curves").append(...CHARTS.map(([{ figure }]) => figure));
byId("open-run").onclick = () => state.isRun ? openChat(state.chat) : showRun();
document.onvisibilitychange = look;
window.onresize = () => state.isRun && drawCurves();
