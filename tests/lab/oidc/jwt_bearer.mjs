// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// RFC 7523, 2.1: an assertion as a grant, judged as Google judges those of its service accounts.

import { decodeJwt, importJWK, jwtVerify } from 'jose'
import { errors } from 'oidc-provider'

export const GRANT_TYPE = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
export const PARAMETERS = ['assertion', 'scope']
const LONGEST = 3600 // seconds that an assertion may live

// Who asks is known from the assertion alone: RFC 7523, 3.1 makes client authentication optional.
export function withClient(form) {
  if (form.grant_type !== GRANT_TYPE || form.client_id || !form.assertion) return form
  try {
    return { ...form, client_id: String(decodeJwt(form.assertion).iss ?? '') }
  } catch {
    return { ...form, client_id: 'none' }
  }
}

class UnauthorizedClient extends errors.OIDCProviderError {
  constructor(description) {
    super(401, 'unauthorized_client')
    this.error_description = description
    this.expose = true
  }
}

// The handler of the grant. accounts: client id -> { jwk, scopes, users } of the service accounts.
export function handler(provider, accounts, audiences) {
  return async (ctx) => {
    const { client, params } = ctx.oidc
    const account = accounts[client.clientId]
    const claims = await verified(params.assertion, account, client.clientId, audiences)
    const wanted = scopesOf(claims, params)
    if (!account.users.includes(claims.sub)) throw new errors.InvalidGrant('Invalid email or User ID')
    if (!wanted.length) throw new errors.InvalidScope('Missing required scope')
    if (wanted.some((scope) => !account.scopes.includes(scope))) {
      throw new UnauthorizedClient('Client is unauthorized to retrieve access tokens using this method, '
        + 'or client not authorized for any of the scopes requested.')
    }
    ctx.body = await issued(provider, ctx, claims.sub, wanted.join(' '))
  }
}

function scopesOf(claims, params) {
  return String(claims.scope ?? params.scope ?? '').split(' ').filter(Boolean)
}

async function verified(assertion, account, issuer, audience) {
  if (!assertion) throw new errors.InvalidRequest("missing required parameter(s) 'assertion'")
  if (!account) throw new errors.InvalidGrant('account not found')
  const now = Date.now()
  try {
    const key = await importJWK(account.jwk, 'RS256')
    const rules = { algorithms: ['RS256'], issuer, audience, currentDate: new Date(now), requiredClaims: ['exp', 'iat', 'sub'] }
    const { payload } = await jwtVerify(assertion, key, rules)
    if (payload.exp - payload.iat > LONGEST || payload.iat > now / 1000 + 60) {
      throw new Error('Token must be a short-lived token (60 minutes) and in a reasonable timeframe. '
        + 'Check your iat and exp values in the JWT claim.')
    }
    return payload
  } catch (problem) {
    throw new errors.InvalidGrant(`Invalid JWT: ${problem.message}`)
  }
}

async function issued(provider, ctx, accountId, scope) {
  const { client } = ctx.oidc
  const grant = new provider.Grant({ accountId, clientId: client.clientId })
  grant.addOIDCScope(scope)
  const token = new provider.AccessToken({ accountId, client, grantId: await grant.save(), gty: 'jwt_bearer', scope })
  ctx.oidc.entity('AccessToken', token)
  return { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer', scope }
}
