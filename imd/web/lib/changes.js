// Whether a message may still be changed or removed, and why something was refused, in words.

/** Whether something may still be done to a message of that age. `seconds`: 0 never, -1 always. */
export const inTime = (seconds = 0, ageMs) => seconds < 0 || ageMs < seconds * 1000;

const CODES = ["too_large", "forbidden", "invalid_message", "expired", "conflict", "not_found", "unsupported"];

export const reasonOf = (code, t) => t(`failed.${CODES.includes(code) ? code : "other"}`);

/** An entry of the outbox that failed, in words. A page offers the changes that are allowed: one that is forbidden came too late,
 *  or a right is gone. */
export function failureOf({ kind, error }, t) {
  const late = kind && error?.code === "forbidden";
  return t("failed.why", { what: t(kind ? `trouble.${kind}` : "state.failed"), why: late ? t("failed.late") : reasonOf(error?.code, t) });
}

/** Whether another attempt may do better. */
export const mayRetry = ({ error }) => !["forbidden", "conflict", "not_found", "unsupported"].includes(error?.code);
