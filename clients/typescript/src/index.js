/** A client of Beseda: typed REST calls, and a socket that never loses its place. */
export { Api } from './api.js';
export { quoteOf } from './carried.js';
export { ApiError } from './errors.js';
export { ChatList } from './chats.js';
export { Client } from './client.js';
export { afterClose, backoff, Connection, PROTOCOL } from './connection.js';
export { Groups } from './groups.js';
export { Live } from './live.js';
export { People } from './people.js';
export { Timeline } from './timeline.js';
export { Credentials, readClaims } from './token.js';

/**
 * @typedef {import('./client.js').Events} Events
 * @typedef {import('./options.js').Options} Options
 * @typedef {import('./options.js').SendOptions} SendOptions
 * @typedef {import('./connection.js').ConnectionState} ConnectionState
 * @typedef {import('./frames.js').ClientFrame} ClientFrame
 * @typedef {import('./frames.js').GoneReason} GoneReason
 * @typedef {import('./frames.js').Position} Position
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./schema.js').Member} Member
 * @typedef {import('./schema.js').Mentions} Mentions
 * @typedef {import('./schema.js').Operations} Operations
 * @typedef {import('./schema.js').User} User
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./timeline.js').Pending} Pending
 * @typedef {import('./uploads.js').Upload} Upload
 */
