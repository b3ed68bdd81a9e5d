"use strict";
// Texts in the reader's language, and numbers with their units.
window.quantmon = {};
{
  const table = JSON.parse(document.getElementById("texts").textContent);
  const wanted = [new URLSearchParams(location.search).get("lang"), ...navigator.languages, "en"];
  const language = wanted.map((tag) => (tag || "").slice(0, 2)).find((tag) => tag === "en" || tag === "zh");
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";

  /** The text of a key, with `{0}`, `{1}`... replaced; the last part of an unknown key as it is. */
  const text = (key, ...values) => {
    const found = table[key] ? table[key][language] : key.slice(key.indexOf(".") + 1);
    return found.replace(/\{(\d)\}/g, (_, place) => values[place]);
  };

  const missing = "–";
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const digits = (value, places = 3) =>
    new Intl.NumberFormat(language, { maximumSignificantDigits: places, minimumSignificantDigits: 1 }).format(value);
  const whole = (value) => (known(value) ? new Intl.NumberFormat(language).format(value) : missing);
  const scaled = (value, units, base) => {
    let place = 0;
    while (place < units.length - 1 && Math.abs(value) >= base * 0.9995) {
      value /= base;
      place += 1;
    }
    // The unit stays on the number's line.
    return `${digits(value)}\u00a0${units[place]}`;
  };

  /** Seconds. */
  const seconds = (value) => {
    if (!known(value)) return missing;
    return Math.abs(value) < 1 ? scaled(value * 1e9, ["ns", "µs", "ms", "s"], 1000) : `${digits(value)}\u00a0s`;
  };
  const bytes = (value) => (known(value) ? scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024) : missing);
  const share = (value) => (known(value) ? `${digits(value * 100)}\u00a0%` : missing);
  const change = (value) => (known(value) ? `${value > 0 ? "+" : ""}${digits(value * 100, 2)}\u00a0%` : missing);
  const plain = (value) => (known(value) ? digits(value) : missing);
  const error = (value) =>
    !known(value) ? missing : value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(1) : digits(value, 3);
  const clock = (time) => {
    if (!known(time)) return missing;
    const date = new Date(time);
    const two = (number) => String(number).padStart(2, "0");
    const thousandths = String(date.getMilliseconds()).padStart(3, "0");
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${thousandths}`;
  };

  Object.assign(window.quantmon, {
    language, text, missing, known, whole, seconds, bytes, share, change, plain, error, clock,
  });
}
