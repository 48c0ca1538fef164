/** Paints a blurhash (https://blurha.sh): the few lowest frequencies of an image, in base 83. Pure, but for the canvas. */

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~';

/** @param {string} text */
function number(text) {
  let value = 0;
  for (const digit of text) {
    const at = DIGITS.indexOf(digit);
    if (at < 0) throw new RangeError('not base 83');
    value = value * 83 + at;
  }
  return value;
}

/** From sRGB's curve to light, and back. */
const toLight = (value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
const toValue = (light) => {
  const value = Math.min(1, Math.max(0, light));
  return Math.round(255 * (value <= 0.0031308 ? value * 12.92 : 1.055 * value ** (1 / 2.4) - 0.055));
};

/**
 * @param {string} hash @param {number} width @param {number} height
 * @returns {Uint8ClampedArray | null} RGBA; null: it is no blurhash
 */
export function decode(hash, width, height) {
  try {
    const size = number(hash[0] ?? '!');
    const [columns, rows] = [size % 9 + 1, Math.floor(size / 9) + 1];
    if (hash.length !== 4 + 2 * columns * rows) return null;
    const contrast = (number(hash[1]) + 1) / 166;
    const mean = number(hash.slice(2, 6));
    const waves = [[mean >> 16, (mean >> 8) & 255, mean & 255].map(toLight)];
    for (let at = 6; at < hash.length; at += 2) {
      const value = number(hash.slice(at, at + 2));
      waves.push([Math.floor(value / 361), Math.floor(value / 19) % 19, value % 19]
        .map((part) => Math.sign(part - 9) * ((part - 9) / 9) ** 2 * contrast));
    }
    return paint(waves, columns, width, height);
  } catch {
    return null;
  }
}

/** @param {number[][]} waves @param {number} columns @param {number} width @param {number} height */
function paint(waves, columns, width, height) {
  const pixels = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const light = [0, 0, 0];
      waves.forEach((wave, index) => {
        const share = Math.cos(Math.PI * x * (index % columns) / width) * Math.cos(Math.PI * y * Math.floor(index / columns) / height);
        wave.forEach((part, colour) => { light[colour] += part * share; });
      });
      pixels.set([...light.map(toValue), 255], 4 * (y * width + x));
    }
  }
  return pixels;
}

/** Side of what is painted, in pixels: enough for what is blurred. */
const SIDE = 24;

/** @param {?string} hash @returns {?HTMLCanvasElement} */
export function blurred(hash) {
  const pixels = hash && decode(hash, SIDE, SIDE);
  if (!pixels) return null;
  const canvas = document.createElement('canvas');
  canvas.width = SIDE;
  canvas.height = SIDE;
  canvas.getContext('2d')?.putImageData(new ImageData(pixels, SIDE, SIDE), 0, 0);
  return canvas;
}
