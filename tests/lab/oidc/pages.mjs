// SPDX-FileCopyrightText: fleetmail.smtp contributors
// SPDX-License-Identifier: GPL-3.0-or-later

// What a person sees. Nothing is loaded from anywhere else.

const entities = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
const safe = (text) => String(text).replace(/[&<>"']/g, (character) => entities[character])

const style = `
  body { font: 16px/1.5 sans-serif; background: #f2f4f7; color: #1d2733; margin: 0 }
  main { max-width: 26rem; margin: 4rem auto; padding: 2rem; background: #fff; border: 1px solid #d5dbe3; border-radius: 8px }
  h1 { font-size: 1.3rem; margin: 0 0 1rem }
  label { display: block; margin: .6rem 0 }
  input:not([type=checkbox]) { display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .4rem }
  button { font: inherit; padding: .4rem 1.2rem; margin: 1rem .5rem 0 0 }
  .problem { color: #a40000 }
`

export function page(title, body) {
  return `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>${safe(title)}</title><style>${style}</style></head>
<body><main><h1>${safe(title)}</h1>
${body}
</main></body>
</html>
`
}

const problem = (text) => (text ? `<p class="problem" role="alert">${safe(text)}</p>` : '')

export function login({ client, hint = '', error = '' }) {
  return page('Sign in', `${problem(error)}
<p>to let <strong>${safe(client)}</strong> send mail for you</p>
<form method="post">
<label>User name <input name="username" value="${safe(hint)}" autocomplete="off" autofocus></label>
<label>Password <input name="password" type="password" autocomplete="off"></label>
<button name="decision" value="sign-in">Sign in</button>
<button name="decision" value="deny">Cancel</button>
</form>`)
}

export function consent({ client, user, scopes }) {
  const boxes = scopes.map((scope) => (
    `<label><input type="checkbox" name="scope" value="${safe(scope)}" checked> ${safe(scope)}</label>`))
  return page('Permissions requested', `
<p><strong>${safe(client)}</strong> asks to do this as <strong>${safe(user)}</strong>:</p>
<form method="post">
${boxes.join('\n')}
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>`)
}

export function userCode(form, error) {
  const text = error && error.name !== 'AbortedError' ? 'That code is not known or was used before.' : ''
  const note = error?.name === 'AbortedError' ? '<p>The request was refused.</p>' : ''
  return page('Connect a device', `${problem(text)}${note}<p>Type the code that the device shows.</p>
${form}<button form="op.deviceInputForm">Continue</button>`)
}

export function confirmUserCode(form, client, code) {
  return page('Confirm the device', `
<p>Does <strong>${safe(client)}</strong> show this code?</p><p><code>${safe(code)}</code></p>
${form}
<button form="op.deviceConfirmForm">Continue</button>
<button form="op.deviceConfirmForm" name="abort" value="yes">It does not</button>`)
}

export function deviceDone(client) {
  return page('Device connected', `<p><strong>${safe(client)}</strong> may go on. You can close this page.</p>`)
}

export function failure(out) {
  const lines = Object.entries(out).map(([key, value]) => `<dt>${safe(key)}</dt><dd>${safe(value)}</dd>`)
  return page('This did not work', `<dl>${lines.join('')}</dl>`)
}
