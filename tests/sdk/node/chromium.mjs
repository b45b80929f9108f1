// Headless Chromium with a profile of its own.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const installed = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((p) => fs.existsSync(p));

export async function browser(t) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "carillon-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CARILLON_CHROMIUM ?? installed, headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  t.after(async () => { await context.close(); fs.rmSync(profile, { recursive: true, force: true }); });
  return context;
}
