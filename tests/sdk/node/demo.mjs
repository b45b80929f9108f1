// The demo page of `carillon serve --dev`, in two windows.
import assert from "node:assert/strict";
import { test } from "node:test";
import { browser } from "./chromium.mjs";

const url = process.env.CARILLON_DEMO;

test("the demo page: every kind of channel, members, events, sign-in in two windows", async (t) => {
  const context = await browser(t);
  const open = async (user) => {
    const page = await context.newPage();
    const errors = [];
    page.on("pageerror", (e) => errors.push(e));
    page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
    t.after(() => assert.deepEqual(errors, []));
    await page.goto(url);
    await page.waitForSelector('#state[data-state="connected"]');
    await page.fill('#you input[name="id"]', user);
    return page;
  };
  const subscribe = async (page, kind, name) => {
    await page.selectOption('#subscribe select[name="kind"]', kind);
    await page.fill('#subscribe input[name="name"]', name);
    await page.click("#subscribe button");
    await page.waitForFunction((full) => document.querySelector("#channels").textContent.includes(full), kind + name);
  };
  const publish = async (page, channel, event, data, as) => {
    await page.check(`#publish input[value="${as}"]`);
    await page.fill('#publish input[name="channel"]', channel);
    await page.fill('#publish input[name="event"]', event);
    await page.fill('#publish textarea[name="data"]', data);
    await page.click("#publish button");
  };
  const seen = (page, text) => page.waitForFunction((x) => document.querySelector("#log").textContent.includes(x), text);

  const ann = await open("ann"), ben = await open("ben");
  for (const page of [ann, ben]) await subscribe(page, "presence-", "lobby");
  await ann.waitForFunction(() => /ben/.test(document.querySelector("#channels").textContent));
  for (const kind of ["", "private-", "private-encrypted-", "cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"]) {
    for (const page of [ann, ben]) await subscribe(page, kind, "hall");
    const text = `hello-${kind}`;
    await publish(ann, `${kind}hall`, "greeting", JSON.stringify({ text }), "backend");
    for (const page of [ann, ben]) await seen(page, text);
  }
  await publish(ann, "presence-lobby", "client-wave", JSON.stringify({ from: "ann-waves" }), "client");
  await seen(ben, "ann-waves");
  await ann.click("#you button");
  await ann.waitForFunction(() => document.querySelector("#signed-in").textContent.includes("ann"));
  if (process.env.CARILLON_SCREENSHOT) await ann.screenshot({ path: process.env.CARILLON_SCREENSHOT, fullPage: true });
  await ben.close();
  await ann.waitForFunction(() => !/ben/.test(document.querySelector("#channels").textContent));
});
