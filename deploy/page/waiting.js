// Waits: shown after 0.3 seconds, and with a button that cancels them after 2.
"use strict";

// Return what work(signal) returns; say meanwhile what is waited for. Cancelled, it ends with an AbortError.
async function waitFor(text, work, request = new AbortController()) {
  const said = make("span", { textContent: text });
  const line = make("p", { className: "wait" }, make("span", { className: "spinner" }), said);
  const cancel = makeButton("Cancel", () => request.abort(), { className: "", name: `Cancel: ${text}` });
  const timers = [
    setTimeout(() => (document.querySelector("dialog[open]") || byId("waits")).append(line), 300),
    setTimeout(() => line.append(cancel), 2000),
  ];
  try {
    return await work(request.signal, (now) => (said.textContent = now));
  } finally {
    timers.forEach(clearTimeout);
    if (line.contains(document.activeElement)) byId("main").focus({ preventScroll: true });
    line.remove();
  }
}

// Follow a job until it has ended: show(job) each half second. When the signal is aborted, the job is cancelled.
async function followJob(job, signal, show) {
  const cancel = () => service.ask(`jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
  if (signal.aborted) cancel();
  signal.addEventListener("abort", cancel);
  try {
    for (;;) {
      show(job);
      if (job.ended) return job;
      await new Promise((go) => setTimeout(go, 500));
      job = await service.json(`jobs/${job.id}`);
    }
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

// How far a job is, in words.
function progress(job) {
  const unit = job.unit || "images";
  const words = [job.state];
  if (job.total) words.push(`${job.done.toLocaleString()} of ${job.total.toLocaleString()} ${unit}`);
  if (job.rate) words.push(`${job.rate.toFixed(job.rate < 10 ? 1 : 0)} a second`);
  if (job.current) words.push(job.current);
  return words.join(" · ");
}
