// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// What the server remembers. Nothing is dropped by age, so that an expired token is told from an unknown one.

const kinds = new Map() // model -> id -> payload

function all(model) {
  if (!kinds.has(model)) kinds.set(model, new Map())
  return kinds.get(model)
}

function found(model, matches) {
  return [...all(model).values()].find(matches)
}

// The adapter that oidc-provider asks for, one a model.
export function storage(settings) {
  return (model) => ({
    async upsert(id, payload) { all(model).set(id, payload) },
    async find(id) { return all(model).get(id) },
    async findByUid(uid) { return found(model, (payload) => payload.uid === uid) },
    async findByUserCode(code) { return found(model, (payload) => payload.userCode === code) },
    async destroy(id) { all(model).delete(id) },
    async revokeByGrantId(grant) { removeMembers(model, grant) },
    async consume(id) {
      const kept = model === 'RefreshToken' && !settings.reuse_detection
      if (!kept) all(model).get(id).consumed = Math.floor(Date.now() / 1000)
    },
  })
}

function removeMembers(model, grant) {
  for (const [id, payload] of all(model)) if (payload.grantId === grant) all(model).delete(id)
}

const public_names = {
  access_token: ['AccessToken', 'ClientCredentials'],
  authorization_code: ['AuthorizationCode'],
  device_code: ['DeviceCode'],
  grant: ['Grant'],
  refresh_token: ['RefreshToken'],
  session: ['Session'],
}

function* chosen({ kind, value, user, client }) {
  for (const model of kind ? public_names[kind] : Object.values(public_names).flat()) {
    for (const [id, payload] of all(model)) {
      const fits = (value === undefined || id === value)
        && (user === undefined || payload.accountId === user)
        && (client === undefined || payload.clientId === client)
      if (fits) yield [model, id, payload]
    }
  }
}

// End the life of what fits now; it stays known as expired.
export function expire(which) {
  const payloads = [...chosen(which)]
  for (const [, , payload] of payloads) payload.exp = Math.floor(Date.now() / 1000) - 1
  return payloads.length
}

// Remove the grants of a user or client with every token of theirs, as when a person withdraws a consent.
export function revoke(which) {
  const grants = [...chosen({ ...which, kind: 'grant' })]
  for (const [, id] of grants) {
    for (const model of kinds.keys()) removeMembers(model, id)
    all('Grant').delete(id)
  }
  for (const [, id] of chosen({ ...which, kind: 'session' })) all('Session').delete(id)
  return grants.length
}

// What the server knows of a token; spends nothing.
export function look(value) {
  for (const [model, , payload] of chosen({ value })) {
    const now = Math.floor(Date.now() / 1000)
    return {
      kind: Object.keys(public_names).find((name) => public_names[name].includes(model)),
      user: payload.accountId ?? payload.extra?.username ?? null,
      client: payload.clientId ?? null,
      scope: payload.scope ?? '',
      expires_at: payload.exp,
      expired: payload.exp <= now,
      consumed: Boolean(payload.consumed),
      usable: payload.exp > now && !payload.consumed,
    }
  }
  return null
}
