/** What the page offers to react with; other applications may have others. */
export const EMOJI = [
  '👍', '👎', '❤️', '😂', '😊', '😍', '😮', '😢', '😡', '🙏', '👏', '🎉', '🔥', '💯', '✅', '❌', '👀', '🤔', '🙌', '💪',
  '👋', '🤝', '🫡', '😅', '😎', '🤯', '🥳', '😴', '🤷', '🙈', '☕', '🍕', '🎂', '🌞', '🌧️', '⭐', '💡', '🚀', '🐛', '⏰',
];
/** They stand in so many columns. */
export const COLUMNS = 8;
