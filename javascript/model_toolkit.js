/* Asks the server how a job goes, for as long as one runs.

   The server puts a mark with a step number into the progress area while a job runs, and a new number with each
   answer. Clicking the hidden poll button sends the next question: no queue, no generator, no timer of Gradio. */
(function () {
    "use strict";

    const EVERY = 300;
    const PATIENCE = 3000;

    let asked = "";
    let askedAt = 0;

    function page() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function ask() {
        const mark = page().querySelector("#model_toolkit_progress [data-model-toolkit-step]");
        if (!mark) {
            asked = "";
            return;
        }
        const step = mark.getAttribute("data-model-toolkit-step");
        const now = Date.now();
        // One question at a time; a lost answer must not stop the asking for good.
        if (step === asked && now - askedAt < PATIENCE) {
            return;
        }
        const button = page().querySelector("#model_toolkit_poll");
        if (button) {
            asked = step;
            askedAt = now;
            button.click();
        }
    }

    if (!window.modelToolkitAsks) {
        window.modelToolkitAsks = window.setInterval(ask, EVERY);
    }
})();
