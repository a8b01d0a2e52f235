// Clicks, keys and uploads of the explorer's page. `element`, `trigger`, `watch` and `props` are
// what Gradio gives to the script of an HTML component.
const MARK = "patch-mark";

function place(pick, x, y) {
  const height = Number(pick.dataset.h), width = Number(pick.dataset.w);
  const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  trigger("pick", { y: inside(y, height), x: inside(x, width) });
}

element.addEventListener("click", (event) => {
  const pick = event.target.closest(".pick"), save = event.target.closest(".save");
  if (save) trigger("save", { what: save.dataset.what, model: save.dataset.model });
  if (!pick) return;
  const box = pick.getBoundingClientRect();
  place(pick, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});

// Arrow keys move the mark by its own size, so that a patch can be chosen without a mouse.
element.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const pick = event.target.closest(".pick"), step = steps[event.key];
  if (!pick || !step) return;
  event.preventDefault();
  const mark = (document.querySelector(".answers") || {}).dataset;
  const [x1, y1, x2, y2] = mark && mark.box ? mark.box.split(",").map(Number) : [.48, .48, .52, .52];
  const [dx, dy] = [step[0] * (x2 - x1), step[1] * (y2 - y1)];
  place(pick, Math.min(.999, Math.max(0, (x1 + x2) / 2 + dx)),
    Math.min(.999, Math.max(0, (y1 + y2) / 2 + dy)));
});

function mark() {
  const answers = document.querySelector(".answers");
  const box = answers ? answers.dataset.box : "";
  document.querySelectorAll("." + MARK).forEach((old) => old.remove());
  if (!box) return;
  const [x1, y1, x2, y2] = box.split(",").map((share) => 100 * Number(share));
  document.querySelectorAll(".pick").forEach((pick) => {
    const drawn = document.createElement("i");
    drawn.className = MARK;
    drawn.style.cssText = `left:${x1}%;top:${y1}%;width:${x2 - x1}%;height:${y2 - y1}%`;
    pick.append(drawn);
  });
}

watch("value", mark);
mark();
