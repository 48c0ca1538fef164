/** Signing in: as one of the demo's people, where there are some, or with a token. */
import { avatar, byId, el } from './dom.js';
import { t } from './i18n.js';
import { readClaims } from '../clients/typescript/src/index.js';

export class SignInView {
  #onToken;

  /** @param {{onToken: (token: string) => void}} options  takes a token of whomever */
  constructor({ onToken }) {
    this.#onToken = onToken;
    byId('token-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#take(byId('token-input').value.trim());
    });
    this.#offerPeople();
  }

  /** @param {string} trouble why the last token does not do, or nothing */
  show(trouble) {
    const wasHidden = byId('sign-in').hidden;
    byId('shell').hidden = true;
    byId('sign-in').hidden = false;
    byId('token-error').textContent = trouble;
    if (wasHidden) (byId('people').querySelector('button') ?? byId('token-input')).focus();
  }

  hide() {
    byId('token-input').value = '';
    byId('sign-in').hidden = true;
    byId('shell').hidden = false;
  }

  /** @param {string} token */
  #take(token) {
    if (readClaims(token)) this.#onToken(token);
    else this.show(t('tokenBad'));
  }

  /** Where a host application signs people in, there is nobody to choose. */
  async #offerPeople() {
    const response = await fetch('demo/people.json', { cache: 'no-store' }).catch(() => null);
    const people = response?.ok ? await response.json() : [];
    byId('demo').hidden = people.length === 0;
    byId('people').replaceChildren(...people.map(({ name, token }) => {
      const user = { user_id: readClaims(token)?.sub ?? name, name };
      return el('li', {}, el('button', { type: 'button', className: 'person', onclick: () => this.#take(token) },
        avatar(user), el('span', {}, name)));
    }));
    if (people.length && !byId('sign-in').hidden && document.activeElement === byId('token-input')) {
      byId('people').querySelector('button').focus();
    }
  }
}
