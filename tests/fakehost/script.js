/* What the hosts' own script gives to extensions, and what their pages do on Reload UI. */
var uiUpdateCallbacks = [], uiAfterUpdateCallbacks = [], uiLoadedCallbacks = [], uiTabChangeCallbacks = [];
var optionsChangedCallbacks = [], optionsAvailableCallbacks = [];
var uiCurrentTab = null, opts = {};

function gradioApp() {
    const elems = document.getElementsByTagName("gradio-app");
    const elem = elems.length === 0 ? document : elems[0];
    if (elem !== document) elem.getElementById = (id) => document.getElementById(id);
    return elem.shadowRoot ? elem.shadowRoot : elem;
}
function onUiUpdate(callback) { uiUpdateCallbacks.push(callback); }
function onAfterUiUpdate(callback) { uiAfterUpdateCallbacks.push(callback); }
function onUiLoaded(callback) { uiLoadedCallbacks.push(callback); }
function onUiTabChange(callback) { uiTabChangeCallbacks.push(callback); }
function onOptionsChanged(callback) { optionsChangedCallbacks.push(callback); }
function onOptionsAvailable(callback) { optionsAvailableCallbacks.push(callback); }

function fakeRun(callbacks, value) {
    for (const callback of callbacks) {
        try { callback(value); } catch (error) { console.error("error running callback", callback, error); }
    }
}
function get_uiCurrentTab() {
    return gradioApp().querySelector('#tabs > .tab-nav > button.selected, #tabs button[role="tab"].selected');
}

(function () {
    let waiting = 0, loaded = false;
    const observer = new MutationObserver(function (records) {
        if (!loaded && gradioApp().querySelector("#txt2img_prompt")) {
            loaded = true;
            fakeRun(uiLoadedCallbacks);
        }
        fakeRun(uiUpdateCallbacks, records);
        window.clearTimeout(waiting);
        waiting = window.setTimeout(() => fakeRun(uiAfterUpdateCallbacks), 200);
        const tab = get_uiCurrentTab();
        if (tab && tab !== uiCurrentTab) {
            uiCurrentTab = tab;
            fakeRun(uiTabChangeCallbacks);
        }
    });
    document.addEventListener("DOMContentLoaded", () => observer.observe(document, {childList: true, subtree: true}));
})();

function restart_reload() {
    document.body.innerHTML = '<h1 style="text-align:center;margin-top:20%">Reloading...</h1>';
    const ping = () => fetch("./internal/ping", {cache: "no-store"}).then((answer) => {
        if (!answer.ok) throw new Error();
        location.reload();
    }).catch(() => window.setTimeout(ping, 300));
    window.setTimeout(ping, 1500);
    return [];
}
function extensions_apply(disabled) {
    const names = [];
    gradioApp().querySelectorAll('#extensions input[type="checkbox"][name^="enable_"]').forEach((box) => {
        if (!box.checked) names.push(box.name.substring(7));
    });
    restart_reload();
    return [JSON.stringify(names)];
}
