// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// The laboratory's authorization server: oidc-provider with people, mail scopes, a journal and switches for tests.
// node server.mjs CONFIG: then one JSON command a line on standard input, one answer a line; it ends with its input.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { appendFileSync, readFileSync, rmSync } from 'node:fs'
import * as http from 'node:http'
import * as https from 'node:https'
import * as querystring from 'node:querystring'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import Provider from 'oidc-provider'
import * as jwtBearer from './jwt_bearer.mjs'
import * as pages from './pages.mjs'
import { expire, look, revoke, storage } from './storage.mjs'

const config = JSON.parse(readFileSync(process.argv[2]))
const settings = config.settings
const CENTURY = 100 * 365 * 86400
const ENDPOINTS = {
  '/auth': 'authorization',
  '/device/auth': 'device_authorization',
  '/token': 'token',
  '/token/introspection': 'introspection',
  '/token/revocation': 'revocation',
  '/me': 'userinfo',
}
const SECRETS = [
  'access_token', 'assertion', 'client_assertion', 'client_secret', 'code', 'code_verifier', 'device_code', 'id_token',
  'password', 'refresh_token', 'token',
]

// Standard output is for answers alone; the library says things there.
console.info = console.error
console.log = console.error

// -- time, which tests can move

const machineTime = Date.now
let ahead = 0
Date.now = () => machineTime() + ahead * 1000

// -- the journal

let count = 0
const write = (event) => appendFileSync(config.journal, `${JSON.stringify({ session: 0, time: machineTime() / 1000, ...event })}\n`)
const fingerprint = (secret) => createHash('sha256').update(String(secret)).digest('hex').slice(0, 16)
const masked = (fields) => Object.fromEntries(
  Object.entries(fields).map(([key, value]) => [key, SECRETS.includes(key) ? fingerprint(value) : value]))

function clientOf(ctx, form) {
  if (ctx.oidc?.client) return ctx.oidc.client.clientId
  const basic = /^Basic (.+)$/i.exec(ctx.get('authorization'))
  return form.client_id || ctx.query.client_id || (basic ? querystring.unescape(Buffer.from(basic[1], 'base64').toString().split(':')[0]) : null)
}

function authenticationOf(ctx, form) {
  if (/^Basic /i.test(ctx.get('authorization'))) return 'client_secret_basic'
  if (form.client_assertion) return 'private_key_jwt'
  return form.client_secret ? 'client_secret_post' : 'none'
}

function begun(ctx, endpoint, form) {
  const number = count += 1
  write({
    event: 'request', number, endpoint, method: ctx.method, path: ctx.path, peer: ctx.ip,
    client: clientOf(ctx, form), authentication: authenticationOf(ctx, form), agent: ctx.get('user-agent'),
    fields: masked({ ...ctx.query, ...form }),
  })
  return number
}

function ended(ctx, number) {
  const body = ctx.body !== null && typeof ctx.body === 'object' && !Buffer.isBuffer(ctx.body) ? ctx.body : {}
  write({
    event: 'answer', number, status: ctx.status, error: body.error ?? null,
    error_description: body.error_description ?? null, detail: ctx.state.detail ?? null, fields: masked(body), location: masked(locationOf(ctx)),
  })
}

function locationOf(ctx) {
  const place = ctx.response.get('location')
  return place ? Object.fromEntries(new URL(place, provider.issuer).searchParams) : {}
}

// -- the server

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const listening = await listen()
const { port } = listening.address()
const host = config.name.includes(':') ? `[${config.name}]` : config.name
const issuer = new URL(`${config.certificate ? 'https' : 'http'}://${host}:${port}`).origin
const offline = new Set() // grants that were asked for with access_type=offline, as Google calls it

function html(ctx, text) {
  ctx.type = 'html'
  ctx.body = text
}

const lives = (name) => () => settings[name]
const provider = new Provider(issuer, {
  adapter: storage(settings),
  clients: config.clients,
  cookies: { keys: [randomBytes(16).toString('hex')] },
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  scopes: config.scopes,
  claims: { email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
  conformIdTokenClaims: false,
  extraParams: ['access_type'],
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form, out, error) => html(ctx, pages.userCode(form, error)),
      userCodeConfirmSource: (ctx, form, client, info, code) => html(ctx, pages.confirmUserCode(form, client.clientName, code)),
      successSource: (ctx) => html(ctx, pages.deviceDone(ctx.oidc.client.clientName)),
    },
  },
  formats: { bitsOfOpaqueRandomness: (ctx, token) => (token.kind === 'AccessToken' || token.kind === 'ClientCredentials' ? settings.access_token_length : 43) * 6 },
  ttl: {
    AccessToken: lives('access_token_seconds'),
    ClientCredentials: lives('access_token_seconds'),
    RefreshToken: lives('refresh_token_seconds'),
    AuthorizationCode: lives('code_seconds'),
    DeviceCode: lives('device_code_seconds'),
    IdToken: 3600,
    Interaction: 3600,
    Session: CENTURY,
    Grant: CENTURY,
  },
  rotateRefreshToken: () => settings.rotate,
  expiresWithSession: async () => false,
  issueRefreshToken: async (ctx, client, source) => (
    client.grantTypeAllowed('refresh_token') && (source.scopes.has('offline_access') || offline.has(source.grantId))),
  extraTokenClaims: async (ctx, token) => ({ username: token.accountId ?? config.mailboxes[token.clientId] }),
  findAccount: async (ctx, accountId) => (
    accountId in config.users
      ? { accountId, claims: async () => ({ sub: accountId, email: accountId, email_verified: true, preferred_username: accountId, name: accountId }) }
      : undefined),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  renderError: (ctx, out) => html(ctx, pages.failure(out)),
})
provider.registerGrantType(
  jwtBearer.GRANT_TYPE,
  jwtBearer.handler(provider, config.service_accounts, [issuer, `${issuer}/token`, ...Object.keys(config.aliases)]),
  jwtBearer.PARAMETERS,
)
provider.on('authorization.success', (ctx) => {
  if (ctx.oidc.params.access_type === 'offline') offline.add(ctx.oidc.grant?.jti)
})
for (const event of ['authorization.error', 'grant.error', 'introspection.error', 'revocation.error']) {
  provider.on(event, (ctx, problem) => { ctx.state.detail = problem.error_detail ?? problem.message })
}
provider.on('server_error', (ctx, problem) => console.error(problem))
provider.use(middleware)
const serve = provider.callback()
listening.on('request', (request, response) => {
  resolveAlias(request)
  serve(request, response)
})

function listen() {
  const certificate = config.certificate && { cert: readFileSync(config.certificate.chain), key: readFileSync(config.certificate.key) }
  const server = certificate ? https.createServer(certificate) : http.createServer()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(config.port, config.host, () => resolve(server))
  })
}

// -- addresses of a provider that this server stands for

const aliases = new Map(Object.entries(config.aliases).map(([address, path]) => [new URL(address).pathname, path]))

function resolveAlias(request) {
  const [path, ...query] = request.url.split('?')
  const own = aliases.get(path)
  if (!own) return
  request.url = [own, ...query].join('?')
  // An assertion names the address that it was sent to. No other endpoint may tell people such an address.
  if (own === '/token' && path.endsWith(own)) request.baseUrl = path.slice(0, -own.length)
}

// -- every request

let turn = Promise.resolve()

// One token request at a time, as a server with a database would have it: of two uses of one refresh token one is the second.
function serially(work) {
  const mine = turn.then(work)
  turn = mine.catch(() => {})
  return mine
}

async function middleware(ctx, next) {
  const endpoint = ENDPOINTS[ctx.path] ?? (ctx.path.startsWith('/device') ? 'device' : ctx.path.split('/')[1] || 'other')
  const form = await readForm(ctx)
  const number = begun(ctx, endpoint, form)
  if (endpoint === 'token' || endpoint === 'device_authorization') await sleep(settings.delay_ms)
  const work = () => answer(ctx, next, endpoint, form)
  await (endpoint === 'token' ? serially(work) : work())
  ended(ctx, number)
  if (endpoint === 'token') await sleep(settings.answer_delay_ms)
}

async function readForm(ctx) {
  if (ctx.method !== 'POST' || !ctx.is('application/x-www-form-urlencoded')) return {}
  const chunks = []
  for await (const chunk of ctx.req) chunks.push(chunk)
  const form = jwtBearer.withClient(querystring.parse(Buffer.concat(chunks).toString()))
  ctx.req.body = querystring.stringify(form)
  return form
}

async function answer(ctx, next, endpoint, form) {
  if (settings.down_status) {
    ctx.status = settings.down_status
    html(ctx, pages.page('Service Unavailable', '<p>The server is being looked after.</p>'))
  } else if (endpoint === 'interaction') {
    await interaction(ctx, form)
  } else if (polledTooSoon(form)) {
    ctx.status = 400
    ctx.body = { error: 'slow_down', error_description: 'polled before the interval had passed' }
  } else {
    if (endpoint === 'authorization') askForConsent(ctx)
    await next()
    amend(ctx, endpoint)
  }
}

// oidc-provider takes offline_access only with prompt=consent (OpenID Connect Core, 11); mail providers do not ask for it.
function askForConsent(ctx) {
  const offlineWanted = /\boffline_access\b/.test(ctx.query.scope) && ctx.query.prompt === undefined
  if (offlineWanted && !settings.strict_offline) ctx.query = { ...ctx.query, prompt: 'consent' }
}

const polled = new Map() // device code -> when

function polledTooSoon(form) {
  if (!form.device_code || !settings.device_interval) return false
  const now = machineTime()
  const last = polled.get(form.device_code) ?? 0
  polled.set(form.device_code, now)
  return now - last < settings.device_interval * 1000 - 50
}

function amend(ctx, endpoint) {
  if (ctx.status !== 200 || ctx.body === null || typeof ctx.body !== 'object') return
  if (endpoint === 'device_authorization' && settings.device_interval) ctx.body = { ...ctx.body, interval: settings.device_interval }
  if (endpoint !== 'token') return
  const body = { ...ctx.body, ...settings.token_extra }
  for (const key of settings.token_omit) delete body[key]
  ctx.body = body
}

// -- the person

async function interaction(ctx, form) {
  const details = await provider.interactionDetails(ctx.req, ctx.res)
  const client = (await provider.Client.find(details.params.client_id)).clientName
  if (ctx.method === 'GET') {
    html(ctx, details.prompt.name === 'login'
      ? pages.login({ client, hint: details.params.login_hint })
      : pages.consent({ client, user: details.session.accountId, scopes: scopesToGrant(details) }))
    return
  }
  const result = form.decision === 'deny'
    ? { error: 'access_denied', error_description: 'the person refused' }
    : await decided(details, form)
  if (result) {
    const finish = { mergeWithLastSubmission: details.prompt.name === 'consent' }
    ctx.status = 303
    ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, finish))
  } else {
    html(ctx, pages.login({ client, hint: form.username, error: 'User name or password is wrong.' }))
  }
}

function scopesToGrant(details) {
  return details.prompt.details.missingOIDCScope ?? String(details.params.scope ?? '').split(' ').filter(Boolean)
}

async function decided(details, form) {
  if (details.prompt.name === 'login') {
    const right = Object.hasOwn(config.users, form.username) && config.users[form.username] === form.password
    return right ? { login: { accountId: form.username } } : null
  }
  const grant = (details.grantId && await provider.Grant.find(details.grantId))
    || new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id })
  const allowed = [form.scope ?? []].flat()
  for (const scope of scopesToGrant(details)) {
    if (allowed.includes(scope)) grant.addOIDCScope(scope)
    else grant.rejectOIDCScope(scope)
  }
  if (details.prompt.details.missingOIDCClaims) grant.addOIDCClaims(details.prompt.details.missingOIDCClaims)
  return { consent: { grantId: await grant.save() } }
}

// -- commands of the test

const commands = {
  change: ({ settings: changed }) => Object.assign(settings, changed),
  expire: ({ which }) => expire(which),
  look: ({ value }) => look(value),
  pass: ({ seconds }) => { ahead += seconds; return ahead },
  revoke: ({ which }) => revoke(which),
  async refuse({ connections }) {
    if (connections) {
      listening.closeAllConnections()
      await new Promise((resolve) => { listening.close(resolve) })
    } else if (!listening.listening) {
      await new Promise((resolve, reject) => { listening.once('error', reject).listen(port, config.host, resolve) })
    }
  },
}

write({ event: 'listening', port, issuer })
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  try {
    process.stdout.write(`${JSON.stringify({ result: await commands[command.do](command) ?? null })}\n`)
  } catch (problem) {
    process.stdout.write(`${JSON.stringify({ problem: String(problem) })}\n`)
  }
}
rmSync(config.folder, { recursive: true, force: true }) // nobody else may be left to do it
process.exit(0)
