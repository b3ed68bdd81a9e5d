"use strict";
// Of a report: plotly is packed, and what starts the page waits for it.
(async () => {
  const packed = document.getElementById("packed");
  const bytes = Uint8Array.from(atob(packed.textContent), (sign) => sign.charCodeAt(0));
  const unpacked = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  packed.remove();
  for (const code of [await unpacked.text(), document.getElementById("start").textContent]) {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  }
})();
