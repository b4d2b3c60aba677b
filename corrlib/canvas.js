// A picture to click on: shows the JPEG it is sent, and says in pixels of the frame where it was
// clicked or a box was drawn. The centre of the top-left pixel is (0, 0), as everywhere in corrlib.
function render({ model, el }) {
  const canvas = document.createElement("canvas");
  canvas.className = "corrlib-canvas";
  canvas.tabIndex = 0;
  canvas.style.cssText = "width: 100%; display: block; cursor: crosshair; touch-action: none";
  canvas.setAttribute("role", "img");
  el.appendChild(canvas);
  const context = canvas.getContext("2d");
  let bitmap = null;
  let newest = 0;
  let start = null; // of a drag
  let end = null;

  function draw() {
    if (!bitmap) return;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    context.drawImage(bitmap, 0, 0);
    if (start && end) {
      const [x, y] = [start, end].map((at) => at.canvas);
      for (const [width, colour] of [[4, "black"], [2, "#e69f00"]]) {
        context.lineWidth = width;
        context.strokeStyle = colour;
        context.strokeRect(x[0], x[1], y[0] - x[0], y[1] - x[1]);
      }
    }
  }

  async function show() {
    const number = ++newest; // decoding may finish in another order than it began
    canvas.setAttribute("aria-label", model.get("label"));
    const decoded = await createImageBitmap(new Blob([model.get("picture")], { type: "image/jpeg" }));
    if (number === newest) {
      bitmap = decoded;
      draw();
    }
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    const [height, width] = model.get("size_hw");
    return {
      frame: [across * width - 0.5, down * height - 0.5],
      canvas: [across * canvas.width, down * canvas.height],
    };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (model.get("tool") === "box") {
      start = place(event);
      canvas.setPointerCapture(event.pointerId);
    } else {
      model.send({ kind: "point", xy: place(event).frame });
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    end = place(event);
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    model.send({ kind: "box", xy: [...start.frame, ...place(event).frame] });
    start = end = null;
    draw();
  });
  canvas.addEventListener("pointercancel", () => {
    start = end = null;
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would scroll
    model.send({ kind: "step", by });
  });
  model.on("change:picture", show);
  show();
}
export default { render };
