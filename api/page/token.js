// The reader's token: asked for once, kept for this tab only, never part of an address.

const NAME = "guestwire-token";

let asking = null;

export const token = () => sessionStorage.getItem(NAME);

export const forget = () => sessionStorage.removeItem(NAME);

/** Ask for it, however many ask at the same time; true when there is one now. */
export function ask(why) {
  asking ??= dialog(why).finally(() => (asking = null));
  return asking;
}

function dialog(why) {
  const element = document.getElementById("token");
  const text = document.getElementById("token-text");
  if (why) document.getElementById("token-why").textContent = why;
  text.value = "";
  return new Promise((resolve) => {
    const given = (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, text.value.trim());
      element.close("given");
    };
    const cancelled = () => element.close("");
    const closed = () => {
      text.value = "";
      element.removeEventListener("submit", given);
      element.querySelector("[value=cancel]").removeEventListener("click", cancelled);
      resolve(element.returnValue === "given");
    };
    element.returnValue = "";
    element.addEventListener("submit", given);
    element.querySelector("[value=cancel]").addEventListener("click", cancelled);
    element.addEventListener("close", closed, { once: true });
    element.showModal();
  });
}
