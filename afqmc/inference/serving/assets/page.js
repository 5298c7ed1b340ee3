"use strict";
// The page of the service. Texts become text nodes, never markup. Nothing is loaded from another server.
(() => {
  const byId = (id) => document.getElementById(id);
  const state = {
    chinese: (navigator.language || "").toLowerCase().startsWith("zh"),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    token: null,
    model: null, // answer of /model
    examples: null, // answer of /examples
    result: null, // {pair, predictions, explanation, explanationProblem}
    problem: null, // [English, Chinese]
  };
  const PROBLEMS = {
    0: ["The service does not answer.", "服务没有响应。"],
    401: ["The token is missing or wrong.", "缺少令牌或令牌错误。"],
    413: ["The sentences are too long.", "句子太长。"],
    422: ["The sentences are not valid.", "句子无效。"],
    429: ["The service is busy. Try again in a moment.", "服务繁忙，请稍后再试。"],
    504: ["There was no answer in time.", "未能在规定时间内得到回答。"],
  };
  const inLanguage = ([english, chinese]) => (state.chinese ? chinese : english);
  const t = (english, chinese) => inLanguage([english, chinese]);

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  async function call(path, body) {
    const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
    const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
    if (body) headers["Content-Type"] = "application/json";
    let response, answer;
    try {
      response = await fetch(path, { ...options, headers });
      answer = await response.json();
    } catch {
      throw { status: 0, error: "" };
    }
    if (!response.ok) throw { status: response.status, error: answer.error || "" };
    return answer;
  }

  function problemOf({ status, error }) {
    const [english, chinese] = PROBLEMS[status] || ["The service reports an error.", "服务报告了一个错误。"];
    return error ? [`${english} (${error})`, `${chinese}（${error}）`] : [english, chinese];
  }

  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const points = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${(100 * Math.abs(value)).toFixed(1)}`;

  // The probability that the bar shows: that of the second of two labels, else that of the predicted label.
  const shownProbability = (prediction) =>
    Array.isArray(prediction.probability)
      ? prediction.probability[state.model.labels.indexOf(prediction.prediction)]
      : prediction.probability;
  const shownLabel = (prediction) =>
    Array.isArray(prediction.probability) ? prediction.prediction : state.model.labels[1];

  function drawAll() {
    document.documentElement.lang = state.chinese ? "zh" : "en";
    document.documentElement.dataset.theme = state.dark ? "dark" : "light";
    for (const node of document.querySelectorAll("[data-zh]")) {
      node.dataset.en ||= node.textContent;
      node.textContent = t(node.dataset.en, node.dataset.zh);
    }
    byId("language").textContent = state.chinese ? "English" : "中文";
    byId("language").lang = state.chinese ? "en" : "zh";
    byId("theme").textContent = state.dark ? t("light", "浅色") : t("dark", "深色");
    byId("problem").hidden = !state.problem;
    byId("problem").textContent = state.problem ? inLanguage(state.problem) : "";
    drawAbout();
    drawResult();
    drawExamples();
  }

  function drawAbout() {
    const { model } = state;
    if (!model) return;
    const labels = model.labels.join(t(", ", "、"));
    const parts = [t(`Labels: ${labels}.`, `标签：${labels}。`)];
    if (model.threshold !== null) {
      const [second, threshold] = [model.labels[1], percent(model.threshold)];
      parts.push(
        t(
          `The prediction is label ${second} from a probability of ${threshold} (threshold).`,
          `概率达到 ${threshold}（阈值）时，预测为标签 ${second}。`,
        ),
      );
    }
    parts.push(
      t(
        `Engine: ${model.engine}. Pairs are cut to ${model.max_length} tokens.`,
        `引擎：${model.engine}。句对最多 ${model.max_length} 个词元，超出部分会被截断。`,
      ),
    );
    byId("about").textContent = parts.join(t(" ", ""));
  }

  function drawResult() {
    byId("result").hidden = !state.result || !state.model;
    if (byId("result").hidden) return;
    const { pair, predictions } = state.result;
    const [forward, backward] = predictions;
    if (forward.prediction === null) {
      byId("decision").textContent = t("The model gives no finite value for this pair.", "模型对该句对没有给出有限的数值。");
      byId("orders").replaceChildren();
      byId("orders-note").textContent = "";
    } else {
      byId("decision").textContent = t(`Label ${forward.prediction}`, `标签 ${forward.prediction}`);
      byId("orders").replaceChildren(
        order(t("sentence 1, sentence 2", "句子 1、句子 2"), forward),
        order(t("sentence 2, sentence 1", "句子 2、句子 1"), backward),
      );
      byId("orders-note").textContent = ordersNote(pair, forward, backward);
    }
    byId("truncated").hidden = !(forward.truncated || backward.truncated);
    byId("truncated").textContent = t(
      `This pair was cut: it has more than ${state.model.max_length} tokens. The model did not see the rest.`,
      `该句对已被截断：超过 ${state.model.max_length} 个词元，模型没有看到其余部分。`,
    );
    drawWords();
  }

  function order(name, prediction) {
    const value = shownProbability(prediction);
    const { threshold } = state.model;
    const text = t(
      `${name}: probability of label ${shownLabel(prediction)} is ${percent(value)}, prediction ${prediction.prediction}`,
      `${name}：标签 ${shownLabel(prediction)} 的概率为 ${percent(value)}，预测为 ${prediction.prediction}`,
    );
    const fill = element("div", { class: "fill" });
    fill.style.width = percent(value);
    const bar = element("div", { class: "bar", role: "img", "aria-label": text }, fill);
    if (threshold !== null) {
      const mark = element("div", { class: "threshold" });
      mark.style.left = percent(threshold);
      bar.append(mark);
    }
    return element("div", { class: "order" }, element("div", {}, text), bar);
  }

  function ordersNote(pair, forward, backward) {
    const mark = state.model.threshold === null ? "" : t("The vertical line is the threshold. ", "竖线是阈值。");
    if (pair[0] === pair[1]) return mark;
    if (forward.prediction === backward.prediction)
      return mark + t("Both orders give the same prediction.", "两种顺序的预测相同。");
    return mark + t("The prediction depends on the order of the sentences.", "预测结果取决于两句的顺序。");
  }

  function drawWords() {
    const { pair, explanation, explanationProblem } = state.result;
    const note = byId("words-note");
    byId("words").replaceChildren();
    if (explanationProblem) note.textContent = inLanguage(explanationProblem);
    else if (!explanation) note.textContent = t("Computing …", "正在计算……");
    if (!explanation) return;
    const largest = Math.max(...explanation.words.map((word) => Math.abs(word.contribution)), 1e-9);
    for (const [index, sentence] of pair.entries()) {
      const line = element("div", { class: "words" });
      const letters = Array.from(sentence); // positions are in characters, not in UTF-16 units
      let end = 0;
      for (const word of explanation.words.filter((each) => each.sentence === index + 1)) {
        line.append(letters.slice(end, word.start).join(""));
        end = word.start + Array.from(word.word).length;
        const mark = element("span", { title: points(word.contribution) }, word.word);
        const color = word.contribution > 0 ? "--for" : "--against";
        mark.style.background = `rgb(var(${color}) / ${((0.6 * Math.abs(word.contribution)) / largest).toFixed(3)})`;
        line.append(mark);
      }
      line.append(letters.slice(end).join(""));
      byId("words").append(line);
    }
    const { label } = explanation;
    const top = [...explanation.words].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)).slice(0, 5);
    const listed = top.map((word) => `${word.word} ${points(word.contribution)}`).join(t(", ", "，"));
    note.textContent = t(
      `Points by which the probability of label ${label} is higher with the word than without it: ${listed}. Blue words raise it, orange words lower it.`,
      `含有该词时，标签 ${label} 的概率比去掉该词时高出的百分点：${listed}。蓝色的词使概率升高，橙色的词使概率降低。`,
    );
  }

  function drawExamples() {
    const { examples: answer } = state;
    if (!answer) return;
    const { examples, missing } = answer;
    byId("examples-box").hidden = examples.length === 0;
    if (missing) {
      byId("examples-note").textContent = t(`Not available: ${missing[0]}.`, `无法显示：${missing[1]}。`);
      return;
    }
    byId("examples-note").textContent = examples.length
      ? t(
          "The most confident errors, as the run recorded them. A click on a row enters it above.",
          "运行时记录的、模型最有把握却判断错误的句对。点击一行可填入上方。",
        )
      : t("None: all dev pairs are correct.", "没有：验证集句对全部判断正确。");
    const names = [t("Sentence 1", "句子 1"), t("Sentence 2", "句子 2"), t("Label", "标签"), t("Predicted", "预测"), t("Probability", "概率")];
    const number = (index) => (index === 4 ? { class: "number" } : {});
    const head = element("tr", {}, ...names.map((name, index) => element("th", number(index), name)));
    const rows = examples.map((example) => {
      const button = element("button", { type: "button" }, example.pair[0]);
      const texts = [button, example.pair[1], example.label, example.prediction, percent(example.probability)];
      const cells = texts.map((text, index) => element("td", number(index), text));
      return element("tr", { class: "example", onclick: () => enter(example.pair) }, ...cells);
    });
    byId("examples").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  function enter(pair) {
    [byId("sentence1").value, byId("sentence2").value] = pair;
    byId("pair-form").requestSubmit();
    window.scrollTo({ top: 0 });
  }

  async function predict() {
    const pair = [byId("sentence1").value, byId("sentence2").value];
    byId("predict").disabled = true;
    try {
      const { predictions } = await call("predict", { pairs: [pair, [pair[1], pair[0]]] });
      state.problem = null;
      const result = (state.result = { pair, predictions, explanation: null, explanationProblem: null });
      drawAll();
      try {
        result.explanation = await call("explain", { pair });
      } catch (error) {
        result.explanationProblem = problemOf(error);
      }
    } catch (error) {
      [state.result, state.problem] = [null, problemOf(error)];
      byId("access").hidden = error.status !== 401;
    }
    byId("predict").disabled = false;
    drawAll();
  }

  async function load() {
    try {
      [state.model, state.examples] = await Promise.all([call("model"), call("examples")]);
      [byId("access").hidden, state.problem] = [true, null];
    } catch (error) {
      byId("access").hidden = error.status !== 401;
      state.problem = error.status === 401 && !state.token ? null : problemOf(error);
    }
    drawAll();
  }

  byId("language").addEventListener("click", () => {
    state.chinese = !state.chinese;
    drawAll();
  });
  byId("theme").addEventListener("click", () => {
    state.dark = !state.dark;
    drawAll();
  });
  byId("pair-form").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  byId("swap").addEventListener("click", () => enter([byId("sentence2").value, byId("sentence1").value]));
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = byId("token").value;
    load();
  });
  drawAll();
  load();
})();
