"use strict";
// Elements from values. Whatever comes from a run becomes text, never markup.
{
  const { text } = window.quantmon;

  /** An element: `h("a", {href: "#/"}, "text", element, ...)`. Nothing (null, false) is left out. */
  const h = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  };

  /**
   * A table. `columns` are {key, label, number, cell(row)}; a cell gives text or an element.
   * The first column is the header of its row.
   */
  const table = (caption, columns, rows, { hidden = true, className = "" } = {}) =>
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h("table", { class: className },
        h("caption", { class: hidden ? "unseen" : null }, caption),
        h("thead", null, h("tr", null, columns.map((column) =>
          h("th", { scope: "col", class: column.number ? "number" : null }, column.label)))),
        h("tbody", null, rows.map((row) =>
          h("tr", { class: row.className || null }, columns.map((column, place) =>
            h(place === 0 ? "th" : "td", {
              scope: place === 0 ? "row" : null,
              class: column.number ? "number" : null,
              "data-label": column.label,
            }, column.cell(row))))))));

  const parts = new Map();

  /** Replace what is in `element` if `data` is not what it was made of, and keep the focus where it is. */
  const fill = (element, data, make) => {
    const now = JSON.stringify(data);
    if (parts.get(element.id) === now && element.childNodes.length) return;
    parts.set(element.id, now);
    const active = element.contains(document.activeElement) ? document.activeElement : null;
    const place = active ? [...element.querySelectorAll(active.tagName)].indexOf(active) : -1;
    element.replaceChildren(...[make()].flat());
    if (active) element.querySelectorAll(active.tagName)[place]?.focus({ preventScroll: true });
  };
  const forget = () => parts.clear();

  /** A line of small values, for the eye alone: the numbers stand beside it. */
  const sparkline = (values, className) => {
    const width = 96;
    const height = 24;
    const shown = values.slice(-48);
    const most = Math.max(...shown, 1e-12);
    const namespace = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(namespace, "svg");
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("class", `spark ${className || ""}`);
    drawing.setAttribute("aria-hidden", "true");
    const points = shown.map((value, place) => [
      shown.length > 1 ? (place / (shown.length - 1)) * width : 0,
      height - 2 - (Math.max(0, value) / most) * (height - 4),
    ]);
    if (points.length === 1) points.push([width, points[0][1]]);
    const way = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" L");
    for (const [kind, data] of [["area", `M0,${height} L${way} L${width},${height}z`], ["line", `M${way}`]]) {
      const path = document.createElementNS(namespace, "path");
      path.setAttribute("class", kind);
      path.setAttribute("d", points.length ? data : "");
      drawing.append(path);
    }
    return drawing;
  };

  /** A button that copies what `make` gives, and says so. */
  const copier = (label, make) => {
    const button = h("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      const content = make();
      try {
        await navigator.clipboard.writeText(content);
      } catch {
        // No permission, or no clipboard, as from a file in some browsers.
        const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
        area.value = content;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        button.focus();
      }
      button.textContent = text("copied");
      button.setAttribute("aria-live", "polite");
      setTimeout(() => { button.textContent = label; }, 2000);
    });
    return button;
  };

  Object.assign(window.quantmon, { h, table, fill, forget, sparkline, copier });
}
