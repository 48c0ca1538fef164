/** Takes the socket's frames to those parts of the client that they concern, in the right order. */

/** @typedef {import('./frames.js').ServerFrame} ServerFrame */

export class Incoming {
  #options;

  /**
   * @param {object} options
   * @param {import('./chats.js').ChatList} options.chats
   * @param {import('./typing.js').Typing} options.typing
   * @param {import('./people.js').People} options.people
   * @param {import('./live.js').Live} options.live
   * @param {import('./list.js').ListSync} options.list
   * @param {import('./history.js').History} options.history
   * @param {import('./renewal.js').Renewal} options.renewal
   * @param {string | null} options.only  the one chat that is followed, instead of many
   * @param {(chatId: string, totalUnread?: number, reason?: import('./frames.js').GoneReason | null) => void} options.onGone
   * @param {import('./emitter.js').Emitter['emit']} options.emit
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {ServerFrame} frame */
  take(frame) {
    const { chats, typing, people, live, list, renewal, onGone, emit } = this.#options;
    const isOtherHistory = 'epoch' in frame && chats.enter(frame.epoch);
    typing.take(frame);
    people.take(frame);
    switch (frame.type) {
      case 'hello':
        break;
      case 'chat.created':
      case 'chat.updated':
        // A followed chat gets presence in frames of its own; this one may come from a time without Redis.
        chats.tell(frame, { keepPresence: live.follows(frame.chat.chat_id) });
        list.followTop();
        emit('chats', {});
        break;
      case 'chat.deleted':
        onGone(frame.chat_id, frame.total_unread, frame.reason);
        break;
      case 'token.expiring':
        renewal.expiresIn(frame.expires_in);
        break;
      case 'subscribed':
        if (chats.setOnline(frame.chat_id, frame.online)) emit('chats', {});
        if (this.#options.history.get(frame.chat_id)?.apply(frame)) emit('chat', { chatId: frame.chat_id });
        break;
      default:
        this.#onChatFrame(frame);
    }
    if (isOtherHistory || frame.type === 'hello') list.refresh();
  }

  /** @param {ServerFrame} frame */
  #onChatFrame(frame) {
    const { chats, live, list, history, only, onGone, emit } = this.#options;
    const listChanged = chats.apply(frame);
    if (listChanged) emit('chats', {});
    if (!('chat_id' in frame)) return;
    const { chat_id: chatId } = frame;
    const timeline = history.get(chatId);
    if (timeline?.loaded) {
      const taken = timeline.apply(frame);
      if (taken === 'gap') return live.resume(chatId);
      if (frame.type === 'reset' || (taken === 'news' && this.#hasJoined(frame))) history.startOver(timeline);
      if (taken === 'news' || frame.type === 'synced') {
        emit('chat', { chatId, frame: taken === 'news' ? frame : null });
      }
    }
    // The socket of one chat tells it by its close.
    if (frame.type === 'member.left' && frame.user_id === chats.me && !only) {
      return onGone(chatId, undefined, frame.reason === 'erased' ? 'removed' : frame.reason);
    }
    if (listChanged && only) list.refreshSoon();
  }

  /** Who joins anew may see other messages than before. @param {ServerFrame} frame */
  #hasJoined(frame) {
    return frame.type === 'member.joined' && frame.members.some(({ user }) => user.user_id === this.#options.chats.me);
  }
}
