"use strict";
// The charts of a model, drawn by plotly: one axis of time for all of them.
{
  const { text, seconds, clock, whole, error, share, bytes, plain, change, h, table, fill } = window.quantmon;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const palette = () => [1, 2, 3, 4, 5, 6].map((place) => colour(`series-${place}`));
  // plotly takes some markup in texts; names of models, inputs and outputs are to be read as they are.
  const escaped = (name) =>
    String(name).replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
  // plotly draws dates as they are written: in the time of this place.
  const local = (time) => new Date(time - new Date(time).getTimezoneOffset() * 60000).toISOString().slice(0, -1);
  const narrow = () => window.innerWidth < 700;

  const layout = (more) => {
    const line = { gridcolor: colour("grid"), zerolinecolor: colour("grid"), linecolor: colour("grid"),
      tickfont: { size: 11 }, automargin: true };
    const { xaxis, yaxis, ...rest } = more;
    return {
      font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: 8, b: 8 }, height: 240, showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      hovermode: "x unified", dragmode: narrow() ? false : "zoom",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
      ...rest,
      xaxis: { ...line, ...xaxis }, yaxis: { ...line, rangemode: "tozero", ...yaxis },
    };
  };

  const overTime = (model) => {
    const anomalies = model.anomalies.flatMap((each) => {
      const from = { xref: "x", yref: "paper", y0: 0, y1: 1, x0: local(each.time), layer: "below" };
      const edge = { ...from, type: "line", x1: local(each.time),
        line: { color: colour("bad"), width: 1.5, dash: "dot" } };
      const until = each.left === null && model.active_anomalies.includes(each.type) ? model.ended : each.left;
      return until === null ? [edge] : [edge, { ...from, type: "rect", x1: local(until),
        fillcolor: colour("bad"), opacity: 0.12, line: { width: 0 } }];
    });
    return {
      shapes: anomalies,
      xaxis: { type: "date", range: [local(model.began), local(Math.max(model.ended, model.began + 5000))],
        hoverformat: "%H:%M:%S", tickformat: "%H:%M:%S", nticks: narrow() ? 4 : 8, showspikes: true,
        spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: colour("line") },
    };
  };

  const trace = (name, time, value, hover, more) => ({
    type: "scatter", mode: time.length > 1 ? "lines" : "markers", name: escaped(name), x: time.map(local), y: value,
    hovertemplate: hover, line: { width: 2, ...(more && more.line) }, ...Object.fromEntries(
      Object.entries(more || {}).filter(([key]) => key !== "line")),
  });

  const inferences = (model) => {
    const met = new Map();
    for (const each of [...model.slow, ...model.wrong, ...model.failed]) met.set(each.span_id, each);
    return [...met.values()].filter((each) => each.start >= model.began);
  };

  let logarithmic = false;
  const scale = () => h("button", { type: "button", class: "scale", "aria-pressed": String(logarithmic),
    onclick: ({ currentTarget }) => {
      logarithmic = !logarithmic;
      currentTarget.setAttribute("aria-pressed", String(logarithmic));
      draw(drawn);
    } }, text("logarithmic"));

  const latency = (model) => {
    const { latency: steps, baseline } = model;
    const [first, second, third] = palette();
    const unit = "%{y:.3s}s";
    const traces = [];
    if (baseline && baseline.low !== null) {
      const ends = [local(model.began), local(model.ended)];
      const edge = { type: "scatter", mode: "lines", x: ends, line: { width: 0 }, hoverinfo: "skip" };
      traces.push({ ...edge, y: [baseline.low, baseline.low], showlegend: false });
      traces.push({ ...edge, y: [baseline.high, baseline.high], name: text("baseline.band"), fill: "tonexty",
        fillcolor: colour("band") });
    }
    if (baseline && baseline.mean !== null) {
      traces.push({ type: "scatter", mode: "lines", x: [local(model.began), local(model.ended)],
        y: [baseline.mean, baseline.mean], name: text("baseline.mean"), hoverinfo: "skip",
        line: { width: 1.5, dash: "dash", color: colour("soft") } });
    }
    traces.push(trace("p99", steps.time, steps.p99, unit, { line: { color: third, width: 1.5 } }));
    traces.push(trace("p95", steps.time, steps.p95, unit, { line: { color: second, width: 1.5 } }));
    traces.push(trace("p50", steps.time, steps.p50, unit, { line: { color: first, width: 2.5 } }));
    const single = inferences(model);
    if (single.length) {
      traces.push({ type: "scatter", mode: "markers", name: text("inference"), x: single.map((e) => local(e.start)),
        y: single.map((e) => e.duration), customdata: single.map((e) => `#/inference/${e.trace_id}/${e.span_id}`),
        hovertemplate: unit, marker: { size: 8, symbol: single.map((e) => (e.error_type ? "x" : "circle")),
          color: single.map((e) => (e.error_type ? colour("bad") : colour("series-4"))),
          line: { width: 1, color: colour("card") } } });
    }
    // Each kind once, at its first time: what recurs is in the list.
    const kinds = new Map(model.anomalies.map((each) => [each.type, each]));
    const marks = narrow() ? [] : [...kinds.values()].reverse().map((each, place) => ({ xref: "x", yref: "paper",
      x: local(each.time), y: 1 - 0.09 * place, yanchor: "top", xanchor: "left", showarrow: false,
      text: escaped(text(`anomaly.${each.type}`)), font: { size: 11, color: colour("bad") },
      bgcolor: colour("card"), opacity: 0.9 }));
    return { traces, layout: { ...overTime(model), height: 340, annotations: marks,
      yaxis: { tickformat: "~s", ticksuffix: "s", type: logarithmic ? "log" : "linear" } } };
  };

  const rate = (model) => {
    const { time, calls } = model.latency;
    return {
      traces: [{ type: "bar", name: text("rate"), x: time.map((each) => local(each - model.step * 500)),
        y: calls.map((count) => count / model.step), width: model.step * 900, hovertemplate: "%{y:,.4~r}",
        marker: { color: colour("series-1") } }],
      layout: { ...overTime(model), showlegend: false, yaxis: { tickformat: "~s" } },
    };
  };

  const distribution = (model) => {
    const shares = (edges) => {
      const total = edges.reduce((sum, edge) => sum + edge[2], 0);
      const known = edges.filter(([low, high]) => low !== null && high !== null);
      const steps = [];
      let end = null;
      for (const [low, high, count] of known) {
        // Zero has no place on a logarithmic axis.
        const start = Math.max(low, high / 10);
        if (end !== start) steps.push([end, 0], [start, 0]);
        steps.push([start, count / total], [high, count / total]);
        end = high;
      }
      steps.push([end, 0]);
      const placed = steps.filter(([place]) => place !== null);
      return { x: placed.map(([place]) => place), y: placed.map(([, height]) => height) };
    };
    const all = shares(model.distribution);
    const traces = [{ type: "scatter", mode: "lines", name: text("all.calls"), ...all, fill: "tozeroy",
      fillcolor: colour("fill"), line: { color: colour("series-1"), width: 2 }, hovertemplate: "%{y:.2~%}" }];
    if (model.baseline && model.baseline.edges.length) {
      traces.push({ type: "scatter", mode: "lines", name: text("baseline"), ...shares(model.baseline.edges),
        line: { color: colour("soft"), width: 1.5, dash: "dash" }, hovertemplate: "%{y:.2~%}" });
    }
    const known = model.distribution.flatMap(([low, high]) => [low, high]).filter((each) => each > 0);
    const ticks = [];
    for (let power = -8; power <= 3; power += 1) {
      for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
    }
    const least = Math.min(...known) * 0.9;
    const shown = ticks.filter((tick) => tick >= least && tick <= Math.max(...known) * 1.1);
    const sparse = Math.ceil(shown.length / (narrow() ? 5 : 9));
    const tickvals = shown.filter((_, place) => place % sparse === 0);
    return { traces, layout: { xaxis: { type: "log", tickvals, ticktext: tickvals.map(seconds), hoverformat: ".3s" },
      yaxis: { tickformat: ".0~%" } } };
  };

  const lines = (found, name, hover) => found.map((each, place) =>
    trace(name(each), each.time, each.value, hover, { line: { color: palette()[place % 6] } }));
  const statistic = (each) => each.attributes["quantmon.statistic"];
  const several = (found) => new Set(found.map((each) => each.process)).size > 1;
  const named = (found, name) => (each) => (several(found) ? `${name(each)} (${each.process})` : name(each));

  const process = (each) => text("process.name", each.process);
  const drift = (model) => ({
    traces: lines(model.drift_lines, several(model.drift_lines) ? process : () => text("drift"), "%{y:+.2~%}"),
    layout: { ...overTime(model), showlegend: several(model.drift_lines),
      yaxis: { tickformat: "~%", rangemode: "normal", zeroline: true, zerolinecolor: colour("line") } },
  });
  const output = (each) => `${each.attributes["quantmon.output.name"]}`;
  const relativeError = (model) => {
    const found = model.error_lines.filter((each) => statistic(each) === "mean");
    const most = model.error_lines.filter((each) => statistic(each) === "max");
    return { traces: [...lines(found, named(found, output), "%{y:.3~g}"),
      ...lines(most, (each) => `${named(most, output)(each)} (${text("max")})`, "%{y:.3~g}").map((each) => (
        { ...each, line: { ...each.line, width: 1, dash: "dot" } }))],
    layout: { ...overTime(model), yaxis: { tickformat: "~g" } } };
  };
  const input = (each) => `${each.attributes["quantmon.input.name"]}`;
  const clipping = (model) => ({
    traces: lines(model.clipping_lines, named(model.clipping_lines, input), "%{y:.3~%}"),
    layout: { ...overTime(model), yaxis: { tickformat: "~%" } },
  });
  const kind = (each) => text(`memory.${each.attributes["quantmon.memory.type"]}`);
  const memory = (model) => ({
    traces: lines(model.memory_lines, named(model.memory_lines, kind), "%{y:.4~s}B"),
    layout: { ...overTime(model), yaxis: { tickformat: "~s", ticksuffix: "B" } },
  });

  const column = (key, label, cell, number = true) => ({ key, label, cell, number });
  const clockColumn = column("time", text("time"), (row) => clock(row.time), false);
  const flat = (found, name, format, label) => ({
    columns: [clockColumn, column("name", label, (row) => row.name, false),
      column("value", text("value"), (row) => format(row.value))],
    rows: found.flatMap((each) => each.time.map((time, place) => (
      { time, name: name(each), value: each.value[place] }))).sort((one, other) => one.time - other.time),
  });
  const steps = (model, ...columns) => ({
    columns: [clockColumn, ...columns],
    rows: model.latency.time.map((time, place) => Object.fromEntries([["time", time],
      ...["calls", "mean", "p50", "p95", "p99"].map((name) => [name, model.latency[name][place]])])),
  });

  const charts = {
    latency: { draw: latency, wide: true, note: true, data: (model) => steps(model,
      ...["p50", "p95", "p99", "mean"].map((name) => column(name, text(name), (row) => seconds(row[name])))) },
    rate: { draw: rate, data: (model) => steps(model,
      column("calls", text("rate"), (row) => plain(row.calls / model.step))) },
    distribution: { draw: distribution, note: true, data: (model) => ({
      columns: [column("from", text("from"), (row) => seconds(row.low)), column("to", text("to"),
        (row) => seconds(row.high)), column("calls", text("calls"), (row) => whole(row.calls))],
      rows: model.distribution.map(([low, high, calls]) => ({ low, high, calls })) }) },
    drift: { draw: drift, note: true, data: (model) => flat(model.drift_lines, process, change, text("process")) },
    error: { draw: relativeError, note: true, data: (model) => flat(model.error_lines,
      (each) => `${output(each)} (${text(statistic(each))})`, error, text("output")) },
    clipping: { draw: clipping, data: (model) => flat(model.clipping_lines, input, share, text("input")) },
    memory: { draw: memory, data: (model) => flat(model.memory_lines, kind, bytes, text("kind")) },
  };

  const most = 200;
  const asTable = (name, columns, rows) =>
    [rows.length > most ? h("p", { class: "note" }, text("table.cut", most, rows.length)) : null,
      table(text(`chart.${name}`), columns, name === "distribution" ? rows : rows.slice(-most).reverse())]
      .filter(Boolean);

  /** The figures of a model, to be drawn by `draw`. */
  const figures = () => Object.entries(charts).map(([name, chart]) =>
    h("figure", { id: `figure-${name}`, class: chart.wide ? "wide" : null },
      h("figcaption", null, h("h2", null, text(`chart.${name}`)),
        name === "latency" ? scale() : null,
        chart.note ? h("p", { class: "note" }, text(`chart.${name}.note`)) : null),
      h("div", { role: "img", "aria-label": text(`chart.${name}`) },
        h("div", { id: `chart-${name}`, class: "chart", "aria-hidden": "true" })),
      h("details", { id: `details-${name}` }, h("summary", null, text("table")),
        h("div", { id: `table-${name}` }))));

  let drawn = null;
  const timed = ["latency", "rate", "drift", "error", "clipping", "memory"];
  let zoom = null;

  /** All charts hold to one piece of time: what one is zoomed to, all are. */
  const follow = (change) => {
    if ("xaxis.autorange" in change) zoom = null;
    else if ("xaxis.range[0]" in change) zoom = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    else return;
    draw(drawn);
  };

  const draw = (model) => {
    drawn = model;
    for (const [name, chart] of Object.entries(charts)) {
      const place = document.getElementById(`chart-${name}`);
      if (!place) return;
      const made = chart.draw(model);
      const shown = layout(made.layout);
      const empty = !made.traces.some((each) => each.x.length);
      if (empty) {
        shown.xaxis.visible = shown.yaxis.visible = false;
        shown.shapes = [];
        shown.height = 120;
        shown.annotations = [{ text: text("nodata"), showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5,
          font: { size: 14, color: colour("soft") } }];
      } else if (zoom && timed.includes(name)) {
        shown.xaxis.range = zoom;
      }
      const first = !place.data;
      window.Plotly.react(place, made.traces, shown, { displayModeBar: false, responsive: true, showTips: false });
      if (first) {
        // What plotly measures texts with.
        document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
        if (timed.includes(name)) place.on("plotly_relayout", follow);
        place.on("plotly_click", ({ points }) => {
          const to = points.map((point) => point.customdata).find((each) => typeof each === "string");
          if (to) location.hash = to;
        });
        const details = document.getElementById(`details-${name}`);
        details.addEventListener("toggle", () => draw(drawn));
      }
      if (document.getElementById(`details-${name}`).open) {
        const { columns, rows } = chart.data(model);
        fill(document.getElementById(`table-${name}`), [columns, rows], () => asTable(name, columns, rows));
      }
    }
  };

  /** Charts that are no longer shown hold listeners of the window. */
  const clear = () => {
    for (const place of document.querySelectorAll(".chart")) window.Plotly.purge(place);
    drawn = zoom = null;
  };

  Object.assign(window.quantmon, { figures, draw, clear, redraw: () => drawn && draw(drawn) });
}
