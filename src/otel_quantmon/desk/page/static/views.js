"use strict";
// The three views: all models, one model, one inference.
{
  const { text, missing, known, whole, seconds, bytes, share, change, plain, error, clock, h, table, fill, sparkline, copier,
    figures, draw } = window.quantmon;

  const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);
  // Of a class's name, what is left of its module; the whole name is among the attributes.
  const short = (kind) => kind.slice(kind.lastIndexOf(".") + 1);
  const chips = (model) => h("span", { class: "chips" }, [model.runtime, model.scheme, model.provider].filter(Boolean)
    .map((each) => h("span", { class: "chip" }, each)));
  const badge = (count) => h("span", { class: count ? "badge bad" : "badge good" }, whole(count));
  const now = (model) => model.active_anomalies.map((kind) => `${text(`anomaly.${kind}`)} (${text("now")})`);

  // What a colour says is said by the number, too.
  const mark = (shown, bad) => (bad ? h("strong", { class: "bad" }, shown) : shown);

  const overviewView = (main, data) => {
    document.title = `${text("models")} · otel-quantmon`;
    if (!main.querySelector("#models")) main.replaceChildren(h("h1", null, text("models")), h("div", { id: "models" }));
    fill(main.querySelector("#models"), data.models, () => {
      if (!data.models.length) {
        return h("div", { class: "empty" }, h("p", null, text("models.waiting")),
          h("p", { class: "note" }, text("models.waiting.hint")));
      }
      const number = (key, label, cell) => ({ key, label, cell, number: true });
      return table(text("models"), [
        { key: "name", label: text("model"), cell: (model) => h("div", null,
          h("a", { href: `#/model/${model.id}` }, model.name), chips(model)) },
        number("calls", text("calls"), (model) => whole(model.calls)),
        number("rate", text("rate"), (model) => h("span", { class: "with-spark" },
          sparkline(model.latency.calls), h("span", null, plain(model.rate)))),
        number("p50", "p50", (model) => seconds(model.p50)),
        number("p95", "p95", (model) => seconds(model.p95)),
        number("p99", "p99", (model) => h("span", { class: "with-spark" },
          sparkline(model.latency.p99.map((each) => each || 0), "second"),
          h("span", null, seconds(model.p99)))),
        number("drift", text("drift"), (model) => change(model.drift)),
        number("errors", text("errors"), (model) => mark(whole(total(model.errors)), total(model.errors) > 0)),
        number("relative_error", text("relative_error"), (model) => error(model.relative_error)),
        number("clip_ratio", text("clip_ratio"), (model) => share(model.clip_ratio)),
        number("memory", text("memory"), (model) => bytes(model.memory)),
        number("anomalies", text("anomalies"), (model) => h("span", { title: now(model).join(", ") },
          badge(total(model.anomaly_counts)), now(model).length ? mark(` ${text("now")}`, true) : null)),
      ], data.models, { className: "cards" });
    });
  };

  const tile = (label, value, note, bad) => h("div", { class: bad ? "tile bad" : "tile" },
    h("dt", null, label), h("dd", null, value, note ? h("small", null, note) : null));

  const tiles = (model) => h("dl", { class: "tiles" },
    tile(text("calls"), whole(model.calls), `${plain(model.rate)} /s`),
    tile("p50", seconds(model.p50)),
    tile("p95", seconds(model.p95)),
    tile("p99", seconds(model.p99)),
    tile(text("drift"), change(model.drift)),
    tile(text("errors"), whole(total(model.errors)),
      Object.entries(model.errors).map(([kind, count]) => `${short(kind)} ${whole(count)}`).join(", "), total(model.errors) > 0),
    tile(text("relative_error"), error(model.relative_error)),
    tile(text("clip_ratio"), share(model.clip_ratio)),
    tile(text("memory"), bytes(model.memory), known(model.memory_now.process_rss)
      ? `${text("memory.process_rss")} ${bytes(model.memory_now.process_rss)}` : null),
    known(model.speedup) ? tile(text("speedup"), `${plain(model.speedup)}\u00a0×`) : null,
    tile(text("anomalies"), whole(total(model.anomaly_counts)),
      [...now(model), ...Object.entries(model.anomaly_counts)
        .filter(([kind, count]) => count && !model.active_anomalies.includes(kind))
        .map(([kind]) => text(`anomaly.${kind}`))].join(", "),
      total(model.anomaly_counts) + model.active_anomalies.length > 0));

  const link = (each, shown) => h("a", { href: `#/inference/${each.trace_id}/${each.span_id}` }, shown);
  const rows = (title, found, first) => h("div", null, h("h2", null, title), found.length
    ? table(title, [
      { key: "start", label: text("start"), cell: (each) => link(each, clock(each.start)) },
      ...(first ? [first] : []),
      { key: "duration", label: text("duration"), number: true, cell: (each) => seconds(each.duration) },
      { key: "operation", label: text("operation"), cell: (each) => each.operation || missing },
      { key: "error", label: text("error"), cell: (each) => (each.error_type ? mark(short(each.error_type), true) : missing) },
    ], found)
    : h("p", { class: "note" }, text("none")));

  const anomalyRows = (model) => [h("h2", null, text("anomalies")), model.anomalies.length
    ? table(text("anomalies"), [
      { key: "time", label: text("time"), cell: (each) => clock(each.time) },
      { key: "type", label: text("kind"), cell: (each) => mark(text(`anomaly.${each.type}`), true) },
      { key: "what", label: text("what"), cell: (each) => h("div", { class: "what" }, each.body || missing) },
      { key: "until", label: text("until"), cell: (each) => clock(each.left) },
      { key: "trace", label: text("trace"), cell: (each) => (each.trace_id && each.span_id
        ? link(each, each.trace_id.slice(0, 8)) : missing) },
    ], model.anomalies)
    : h("p", { class: "note" }, text("none"))];

  const pairs = (found) => h("dl", { class: "facts" }, Object.entries(found).flatMap(([name, value]) =>
    [h("dt", null, name), h("dd", null, typeof value === "string" ? value : JSON.stringify(value))]));

  const modelView = (main, model) => {
    document.title = `${model.name} · otel-quantmon`;
    if (main.dataset.shown !== `model-${model.id}`) {
      main.dataset.shown = `model-${model.id}`;
      main.replaceChildren(
        h("nav", { "aria-label": text("models") }, h("a", { href: "#/" }, `← ${text("models")}`)),
        h("div", { class: "title" }, h("h1", null, model.name), h("span", { id: "chips" })),
        h("div", { id: "tiles" }),
        h("div", { class: "figures" }, figures()),
        h("section", { id: "anomalies", class: "card" }),
        h("div", { class: "lists" }, ["slow", "wrong", "failed"].map((part) =>
          h("section", { id: part, class: "card" }))),
        h("section", { id: "facts", class: "card" }));
    }
    const part = (id, data, make) => fill(document.getElementById(id), data, make);
    part("chips", [model.runtime, model.scheme, model.provider], () => chips(model));
    part("tiles", [model.calls, model.rate, model.p50, model.p95, model.p99, model.drift, model.relative_error,
      model.clip_ratio, model.memory, model.memory_now, model.speedup, model.errors, model.anomaly_counts, model.active_anomalies], () => tiles(model));
    draw(model);
    part("anomalies", model.anomalies, () => anomalyRows(model));
    part("slow", model.slow, () => rows(text("inferences.slow"), model.slow));
    part("wrong", model.wrong, () => rows(text("inferences.wrong"), model.wrong, { key: "relative_error",
      label: text("relative_error"), number: true, cell: (each) => error(each.relative_error) }));
    part("failed", model.failed, () => rows(text("inferences.failed"), model.failed));
    part("facts", [model.info, model.provider], () => [h("h2", null, text("facts")), pairs({
      "quantmon.runtime.name": model.runtime, "quantmon.quantization.scheme": model.scheme,
      "quantmon.execution_provider": model.provider || missing, ...model.info })]);
  };

  const waterfall = (spans, chosen) => {
    const ends = Math.max(...spans.map((span) => span.offset + span.duration), 1e-9);
    const bar = (span) => {
      const made = h("div", { class: span.error_type || span.status === 2 ? "bar bad" : span.model ? "bar own" : "bar" });
      made.style.left = `${(span.offset / ends) * 100}%`;
      made.style.width = `${Math.max((span.duration / ends) * 100, 0.25)}%`;
      return h("div", { class: "track" }, made);
    };
    const name = (span) => {
      const made = h("span", { class: "depth" }, span.model
        ? h("a", { href: `#/inference/${span.trace_id}/${span.span_id}` }, span.name) : span.name);
      made.style.paddingInlineStart = `${Math.min(span.depth, 12) * 14}px`;
      return made;
    };
    return table(text("waterfall"), [
      { key: "span", label: text("span"), cell: name },
      { key: "process", label: text("process"), cell: (span) =>
        [span.service, span.pid].filter((each) => each !== null && each !== "").join(" ") || missing },
      { key: "offset", label: text("offset"), number: true, cell: (span) => seconds(span.offset) },
      { key: "duration", label: text("duration"), number: true, cell: (span) => seconds(span.duration) },
      { key: "bar", label: text("course"), cell: bar },
    ], spans.map((span) => ({ ...span, className: span.span_id === chosen ? "chosen" : "" })), { className: "waterfall" });
  };

  const inferenceView = (main, spans, chosen, models) => {
    const span = spans.find((each) => each.span_id === chosen);
    if (!span) return messageView(main, text("gone"));
    if (main.dataset.shown === `span-${chosen}`) return undefined;
    main.dataset.shown = `span-${chosen}`;
    document.title = `${span.name} · otel-quantmon`;
    const scheme = span.attributes["quantmon.quantization.scheme"];
    const model = models.find((each) => each.name === span.model && (!scheme || each.scheme === scheme));
    main.replaceChildren(
      h("nav", { "aria-label": text("models") }, model
        ? h("a", { href: `#/model/${model.id}` }, `← ${text("back", model.name)}`)
        : h("a", { href: "#/" }, `← ${text("models")}`)),
      h("div", { class: "title" }, h("h1", null, span.name),
        h("span", { class: "actions" }, copier(text("copy"), () => JSON.stringify(span, null, 2)),
          copier(text("copy.link"), () => location.href))),
      h("dl", { class: "tiles" }, tile(text("start"), clock(span.start)), tile(text("duration"), seconds(span.duration)),
        tile(text("operation"), span.operation || missing),
        tile(text("error"), span.error_type ? short(span.error_type) : missing, span.message, Boolean(span.error_type)),
        tile(text("process"), `${span.service || missing}`, span.pid)),
      h("section", { class: "card", id: "waterfall" }, h("h2", null, text("waterfall")), waterfall(spans, chosen)),
      h("div", { class: "lists" },
        h("section", { class: "card" }, h("h2", null, text("attributes")),
          pairs({ trace_id: span.trace_id, span_id: span.span_id, ...span.attributes })),
        span.events.length ? h("section", { class: "card" }, h("h2", null, text("events")), span.events.map((event) =>
          [h("h3", null, event.name), pairs(event.attributes)])) : null));
    return undefined;
  };

  const messageView = (main, message) => {
    main.dataset.shown = "message";
    main.replaceChildren(h("nav", null, h("a", { href: "#/" }, `← ${text("models")}`)), h("p", { class: "empty" }, message));
  };

  Object.assign(window.quantmon, { overviewView, modelView, inferenceView, messageView });
}
