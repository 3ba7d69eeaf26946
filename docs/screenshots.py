"""Makes the screenshots of the docs, from real trainings, with the Chromium of the system: `tox -e screenshots`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
# Data that is slow to make, then a validation; the times are waited for, the rest is real.
TRAINING = """
import sys, time
from traceml_core.sdk import trace_run

name, wait_s, steps = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

def batches():
    for number in range(steps):
        time.sleep(wait_s * (3 if number < 8 else 1))
        yield number

with trace_run(name=name, mode=sys.argv[4], report="line") as run:
    for number in run.batches(batches()):
        with run.step():
            with run.phase("forward"):
                time.sleep(0.004)
            with run.phase("backward"):
                time.sleep(0.007)
            with run.phase("optimizer"):
                time.sleep(0.001)
        if number % 100 == 99:
            with run.phase("validation"):
                time.sleep(0.1)
"""
WIDE, NARROW = {"width": 1180, "height": 900}, {"width": 390, "height": 844}


def main() -> None:
    """Train, open what comes of it, and look."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("there is no Chromium here; Debian: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        work = Path(place)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        train(work, "healthy", "0.0005", "500")
        report = train(work, "slow-loader", "0.012", "500")
        subprocess.run([sys.executable, "-m", "traceml_core", "report", report, "--format", "html"], check=True)
        address = (report / "final_summary.html").as_uri()
        light = browser.new_page(viewport=WIDE, color_scheme="light")
        shoot(light, address, "html-report.png")
        shoot_part(light, "#steps", "html-report-steps.png")
        shoot(browser.new_page(viewport=WIDE, color_scheme="dark"), address, "html-report-dark.png")
        shoot_dashboard(browser, work)
        browser.close()


def train(work: Path, name: str, wait_s: str, steps: str) -> Path:
    """A training; its run folder."""
    subprocess.run([sys.executable, "-c", TRAINING, name, wait_s, steps, "summary"], cwd=work, check=True)
    return max((work / "traceml_runs").glob(f"*-{name}-*"))


def shoot_dashboard(browser, work: Path) -> None:
    """The dashboard of a run that goes on: the list, the run, and the run on a telephone."""
    command = [sys.executable, "-c", TRAINING, "in-progress", "0.012", "900", "dashboard"]
    training = subprocess.Popen(command, cwd=work, stderr=subprocess.PIPE, text=True)
    address = re.search(r"dashboard at (http\S+)", training.stderr.readline())[1]
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    page.goto(address)
    page.wait_for_selector("text=/ [3-9]\\d\\d steps/")
    page.screenshot(path=IMAGES / "dashboard-run.png")
    page.click("text=All runs")
    page.screenshot(path=IMAGES / "dashboard-list.png", clip={"x": 0, "y": 0, "width": 1180, "height": 330})
    phone = browser.new_page(viewport=NARROW, color_scheme="dark")
    shoot(phone, address, "dashboard-narrow.png")
    training.communicate()


def shoot(page: Page, address: str, name: str) -> None:
    """What the window shows."""
    page.goto(address)
    page.wait_for_selector(".plot .main-svg")
    page.screenshot(path=IMAGES / name)


def shoot_part(page: Page, selector: str, name: str) -> None:
    """One part of the page."""
    page.locator(selector).screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
