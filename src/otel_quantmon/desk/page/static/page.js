"use strict";
// Where the data comes from (the server, or the file itself), which view is shown, and when it is brought up to date.
{
  const { text, whole, h, fill, forget, clear, redraw, overviewView, modelView, inferenceView, messageView } = window.quantmon;
  const main = document.getElementById("main");
  const state = document.getElementById("state");
  const own = document.getElementById("data");
  const held = own && JSON.parse(own.textContent);

  const served = async (path) => {
    const answer = await fetch(path, { headers: { Accept: "application/json" } });
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    return answer.json();
  };
  const source = held ? {
    run: async () => held.run,
    model: async (id) => held.models[id] || null,
    trace: async (id) => held.traces[id] || null,
  } : {
    run: () => served("api/run"),
    model: (id) => served(`api/models/${id}`),
    trace: (id) => served(`api/traces/${id}`),
  };

  let connected = true;
  let told = null;
  const showRun = (run) => {
    told = run;
    document.getElementById("command").textContent = (run.command || []).join(" ");
    const ended = run.ended !== null && run.ended !== undefined;
    const word = held ? "report" : ended ? "ended" : connected ? "live" : "lost";
    const more = [
      run.processes === 1 ? text("process.one") : text("processes", whole(run.processes)),
      ended && run.exit_status !== null && run.exit_status !== undefined ? text("exit", run.exit_status) : null,
    ].filter(Boolean);
    fill(state, [word, more], () => [h("span", { class: `dot ${word}`, "aria-hidden": "true" }),
      h("strong", null, text(word)), ...more.map((each) => h("span", { class: "note" }, each))]);
    document.getElementById("footer").textContent =
      `otel-quantmon ${run.version} · ${text("kept", whole(run.spans), whole(run.points))}`;
  };

  let place = null;
  const route = () => {
    const found = location.hash.match(/^#\/(?:model\/(\d+)|inference\/([0-9a-f]{32})\/([0-9a-f]{16}))?$/);
    return found ? { model: found[1], trace: found[2], span: found[3] } : {};
  };

  let asked = 0;
  const show = async () => {
    asked += 1;
    const turn = asked;
    const wanted = route();
    const key = JSON.stringify(wanted);
    try {
      const [run, found] = await Promise.all([source.run(),
        wanted.model ? source.model(wanted.model) : wanted.trace ? source.trace(wanted.trace) : true]);
      // Meanwhile another view was asked for.
      if (turn !== asked) return;
      const moved = key !== place;
      if (moved) {
        clear();
        forget();
        delete main.dataset.shown;
        main.replaceChildren();
      }
      showRun(run.run);
      if (found === null) messageView(main, text("gone"));
      else if (wanted.model) modelView(main, found);
      else if (wanted.trace) inferenceView(main, found, wanted.span, run.models);
      else overviewView(main, run);
      if (moved && place !== null) {
        window.scrollTo(0, 0);
        main.focus({ preventScroll: true });
      }
      place = key;
      document.documentElement.dataset.ready = key;
    } catch (failure) {
      if (turn === asked && main.childNodes.length === 0) messageView(main, text("failed", failure.message));
    }
  };

  document.getElementById("skip").textContent = text("skip");
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  window.addEventListener("hashchange", show);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (!held) {
    const changes = new EventSource("api/changes");
    const again = (now) => () => {
      connected = now;
      if (!document.hidden) show();
    };
    changes.addEventListener("change", again(true));
    changes.addEventListener("error", () => {
      connected = false;
      if (told) showRun(told);
    });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) show(); });
  }
  show();
}
