"""Chromium without a window, driven by its command line alone: a script in the page reports."""

import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

_REPORT = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
style-src 'unsafe-inline'; script-src 'unsafe-inline'"><script>
window.faults = [];
window.requests = [];
document.addEventListener("securitypolicyviolation", (event) => requests.push(event.blockedURI));
window.addEventListener("error", (event) => window.faults.push(String(event.message)));
console.error = (...words) => window.faults.push(words.join(" "));
</script>"""

_RUN = """<script>
window.addEventListener("load", () => setTimeout(() => {
let found;
try { found = (() => { SCRIPT })(); } catch (error) { window.faults.push(String(error)); }
parent.postMessage(JSON.stringify({found, faults, requests}), "*");
}, 50));
</script>"""


_FRAME = """<!doctype html><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0">
</iframe><pre id="found"></pre><script>
window.addEventListener("message", (event) => {
  document.querySelector("pre").textContent = event.data;
});
</script>"""


@functools.cache
def find_browser():
    """Return the path of one; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def look(page, script, folder, *, width=1200, dark=False):
    """Run a script at the end of a page, and return what it returns, faults, and requests.

    Args:
        page: HTML.
        script: the body of a function.
        folder: where the browser may write.
        width: of the window.
        dark: whether the user prefers that.
    """
    begun = page.replace("<head>", f"<head>{_REPORT}", 1)
    ended = begun.replace("</body>", _RUN.replace("SCRIPT", script) + "</body>", 1)
    (Path(folder) / "page.html").write_text(ended, encoding="utf-8")
    path = Path(folder) / "frame.html"  # a window has a least width, a frame has none
    path.write_text(_FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [
        find_browser(), "--headless", "--disable-gpu", "--no-first-run",
        *(["--no-sandbox"] if os.getuid() == 0 else []),
        f"--user-data-dir={folder}/profile", "--window-size=1400,1000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--virtual-time-budget=2000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (note,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.S)
    return json.loads(html.unescape(note))
