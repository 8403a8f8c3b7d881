"""Texts that hold a secret and texts that do not, each with the reason.

None of the credentials is real; they are put together here, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
from typing import NamedTuple


class Secret(NamedTuple):
    """A text that is to be found, by which detector, and what is left of it when it is redacted."""

    text: str
    detector: str
    left: str
    reason: str


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def jwt(header: str = '{"alg":"HS256"}') -> str:
    """A token with this header; 15 bytes of header are the fewest that a signed token has."""
    return f"{_encoded(header)}.{_encoded('{}')}.c2ln"


PHRASE = "abandon " * 11 + "about"
LONG_PHRASE = "zoo " * 23 + "vote"
WRONG_PHRASE = ("abandon " * 12).strip()
LOGIN = "Basic " + base64.b64encode(b"bob:pw").decode()
PEM = "-----BEGIN {0}PRIVATE KEY{1}-----\nMIIB\n-----END {0}PRIVATE KEY{1}-----"


def _token(text: str, detector: str, reason: str) -> Secret:
    return Secret(text, detector, f"[redacted:{detector}]", reason)


def _assigned(before: str, value: str, after: str, reason: str) -> Secret:
    return Secret(f"{before}{value}{after}", "assignment", f"{before}[redacted:assignment]{after}", reason)


TOKENS = [
    _token(jwt(), "json_web_token", "the shortest header"),
    _token(jwt('{"typ":"JWT",\r\n "alg":"none"}'), "json_web_token", "white space in the header"),
    _token("AKIA" + "Z" * 16, "aws_credential", "a long-lived key id"),
    _token("ASIA" + "2" * 16, "aws_credential", "a temporary key id"),
    *(_token(f"gh{kind}_" + "a" * 36, "github_token", "a token of GitHub") for kind in "pousr"),
    _token("github_pat_" + "a" * 22 + "_" + "b" * 59, "github_token", "a fine-grained token"),
    *(
        _token(f"gl{kind}-" + "x_-4" * 5, "gitlab_token", "a token of GitLab")
        for kind in ("pat", "dt", "rt", "ptt", "cbt", "ft", "soat", "imt", "agent", "oas")
    ),
    _token("glpat-" + "x" * 27 + ".01.0abc", "gitlab_token", "a routable token"),
    _token("xoxb-1" + "2" * 15, "slack_token", "a bot's token"),
    _token("xapp-1-A" + "2" * 14, "slack_token", "an app's token"),
    _token("AIza" + "-" * 35, "google_credential", "an API key"),
    _token("GOCSPX-" + "a" * 28, "google_credential", "a client's secret"),
    _token("ya29." + "a" * 30, "google_credential", "an access token"),
    *(
        _token(f"{kind}_" + "a" * 16, "stripe_credential", "a key of Stripe")
        for kind in ("sk_live", "rk_live", "sk_test", "rk_test")
    ),
    _token("whsec_" + "a" * 32, "stripe_credential", "a webhook's secret"),
    _token("sk-" + "a" * 20, "llm_credential", "the form without a kind"),
    _token("sk-ant-" + "api03-" + "a_-" * 8, "llm_credential", "Anthropic"),
    _token("sk-proj-" + "a_-" * 8, "llm_credential", "OpenAI"),
    _token("npm_" + "a" * 36, "npm_token", "a token of npm"),
    _token("pypi-Ag" + "a" * 30, "pypi_token", "a token of PyPI"),
    _token("hf_" + "a" * 34, "hugging_face_token", "a token of Hugging Face"),
    _token("SG." + "a" * 22 + "." + "b" * 43, "sendgrid_credential", "two parts"),
    *(_token(f"do{kind}_v1_" + "a" * 64, "digitalocean_token", "hexadecimal") for kind in "opr"),
    _token("dckr_pat_" + "a" * 27, "docker_token", "a token of Docker"),
    _token("hvs." + "a" * 24, "vault_token", "a token of Vault"),
    _token("AGE-SECRET-KEY-1" + "Q" * 58, "age_identity", "a key of age"),
    *(_token(f"{kind}prv" + "9" * 107, "wallet_root", "the root of a wallet") for kind in "xyzt"),
]

SECRETS = [
    *TOKENS,
    Secret(
        "12345678:AA" + "x" * 33,
        "telegram_token",
        "12345678[redacted:telegram_token]",
        "the bot's id is public",
    ),
    *(
        _token(PEM.format(kind, block), "pem_block", "PEM of every kind")
        for kind, block in (
            ("", ""),
            ("RSA ", ""),
            ("EC ", ""),
            ("OPENSSH ", ""),
            ("ENCRYPTED ", ""),
            ("PGP ", " BLOCK"),
        )
    ),
    _token("-----BEGIN PRIVATE KEY-----\nMIIB", "pem_block", "cut off: all the rest goes"),
    _token(
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
        "pem_block",
        "SSH2",
    ),
    Secret(
        f"{PEM.format('', '')}\nand\n{PEM.format('EC ', '')}\n",
        "pem_block",
        "[redacted:pem_block]\nand\n[redacted:pem_block]\n",
        "what stands between two blocks is kept",
    ),
    _token("Bearer abcdefghijklmnop", "bearer", "16 characters"),
    Secret("got bEARER\tabc.def~ghi+jkl/m= from", "bearer", "got [redacted:bearer] from", "any case, a tab"),
    Secret(f"sent {LOGIN} there", "basic_auth", "sent [redacted:basic_auth] there", "decodes to a login"),
    Secret(
        "postgres://bob:pw@host/db",
        "url_credentials",
        "postgres://bob:[redacted:url_credentials]@host/db",
        "a password",
    ),
    Secret("redis://:pw@host", "url_credentials", "redis://:[redacted:url_credentials]@host", "no user"),
    Secret("x://b:p@s:s@h", "url_credentials", "x://b:[redacted:url_credentials]@h", "up to the last @"),
    Secret(
        "commit ghp_" + "a" * 36 + " slipped in",
        "github_token",
        "commit [redacted:github_token] slipped in",
        "a span",
    ),
    _token(PHRASE, "bip39_phrase", "twelve words"),
    _token(LONG_PHRASE, "bip39_phrase", "24 words"),
    _token(
        f"\n {PHRASE.upper()} ".replace(" ", " \t\r\n"), "bip39_phrase", "white space and case do not matter"
    ),
    _assigned("password: ", "hunter2", "", "alone"),
    _assigned("PASSWORD=", "hunter2", "", "a variable of the environment"),
    _assigned("PGPASSWORD=", "x", " psql -h host", "the name ends a longer word"),
    _assigned("MYSQL_ROOT_PASSWORD = ", "x", "\nUSER=bob", "blanks around the sign"),
    _assigned('{"api_key": "', "abc", '"}', "JSON in a text"),
    _assigned('{\\"api_key\\": \\"', "a b c", '\\"}', "JSON in JSON"),
    _assigned("{'dbPassword': '", "x", "', 'user': 'bob'}", "a Python dict in a text"),
    _assigned("--password=", "x", "", "an option"),
    _assigned("?api_key=", "abc", "&page=2", "a query"),
    _assigned("user[password]=", "abc", "", "a form"),
    _assigned('os.environ["SECRET_KEY"] = "', "abc", '"', "source code"),
    _assigned("password: str = '", "abc", "'", "an annotation between"),
    _assigned("secret_key := `", "abc", "`", "Go"),
    _assigned("'password' => '", "abc", "'", "Ruby"),
    _assigned("password='", "never closed", "\nnext line", "the quotes end with the line"),
    _assigned("password='", "never closed", "", "the quotes end with the text"),
    _assigned("password" + '"' * 4 + "\t" * 32 + "=\t", "abc", "", "the widest gap before the sign"),
    _assigned("x-api-key: ", "abc", "", "a header"),
    _assigned("user=bob, password: ", "swordfish", ", host: x", "a member of a list"),
    _assigned("(password: ", "swordfish", ") and more", "a bracket ends"),
    _assigned("login: bob password: ", "hunter2", " host: x", "letters and digits, in the midst of a line"),
    _assigned("password: ", "swordfish", " # until Monday", "a comment follows"),
    _assigned("password: ", "p" * 500, " is long", "no word is so long"),
    _assigned("password: ", "pässwörd", "", "more than ASCII"),
    _assigned("Authorization: ", "Basic dTpwdw", "", "a scheme and credentials"),
    _assigned("Authorization: ", "Bearer abc123", "\r\nHost: x", "a short bearer token"),
    _assigned("authorization: ", 'Digest username="bob", response="6629"', "\nHost: x", "the fields too"),
    _assigned("curl -H 'authorization: ", "token abc1", "' https://host", "in quotes"),
    _assigned("Seed phrase: ", PHRASE, ", said Bob", "a phrase after its name"),
    _assigned("mnemonic = ", PHRASE, " and so on and so on", "words on both sides"),
    _assigned("apiKey2: ", "abc", "", "a number after the name"),
    _assigned("secret access key: ", "abc", "", "blanks in the name"),
    _assigned("DBPassword=", "abc", "", "an acronym before the name"),
]

CLEAN = [
    ("", "nothing"),
    ("Reset your password: see the guide", "prose"),
    ("the password is checked", "prose"),
    ("password must be long", "prose"),
    ("Add password reset", "prose"),
    ("fix: token refresh", "prose"),
    ("feat(password): allow reset", "the name is not next to the sign"),
    ("Note: your password, as any: keep it", "a comma after the name"),
    ("Reset your password: https://example.org/reset", "a URL"),
    ("password: 8-character minimum for all", "a size"),
    ("mnemonic: 24-word phrases only", "a size"),
    ("private key: ed25519 by default", "an algorithm"),
    ("secret key: abc is not known", "plain words"),
    ("password: str", "a type"),
    ("password: optional. More follows", "a type and a sentence"),
    ("password=None", "nothing"),
    ("password=", "nothing"),
    ("password: ", "a prompt"),
    ("password = ''", "nothing"),
    ("password:\n  hunter", "another line"),
    ("password: ****", "a mask"),
    ("password=${DB_PASSWORD}", "a variable"),
    ("password=$DB_PASSWORD", "a variable"),
    ("password='{password}'", "a template"),
    ("password=%(password)s and %s", "a template"),
    ("api_key: ${{ vars.x }}", "a template"),
    ("Authorization: Bearer <token-1>", "a template"),
    ("Authorization: Bearer tokens are accepted", "prose"),
    ("authorization: {", "a structure"),
    ("Password::Reset", "a namespace"),
    ("password == other", "a comparison"),
    ("password: [redacted:assignment]", "a marker"),
    ("password://x", "a scheme"),
    ("NOPASSWD: ALL", "sudoers"),
    ("passwd: files systemd", "nsswitch.conf"),
    ("passwordless=yes", "another word"),
    ("myapikeyx=abc keypad=1 grapikey=2", "other words"),
    ("bigapikey=abc", "the name begins inside of a word"),
    ("authorization_status: granted", "other last words"),
    ("monkey=banana turkey: x key=value token=x phrase: y secret=z", "last words alone"),
    ("src/auth/password_reset.py", "a path"),
    ('<input type="password" name="x">', "HTML"),
    ("bob@example.org", "an address"),
    ("Author: Bob Smith <bob@example.org>\nDate: Mon Jan 1 10:00:00 2024", "git log"),
    ("id,name,password\n1,bob,x", "CSV"),
    ("https://example.org:8443/a@b?c=d:e@f", "no user information"),
    ("http://localhost:8080,bob@example.org", "a port, and then an address"),
    ("ssh://git@example.org:22/repo", "a user alone"),
    ("https://bob:@example.org", "an empty password"),
    ("postgres://bob:***@host", "a mask"),
    ("postgres://bob:[redacted:url_credentials]@host", "a marker"),
    ("postgres://{user}:{password}@host", "a template"),
    ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "a Git hash"),
    ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", "a UUID"),
    ("e" * 64, "hexadecimal"),
    ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk", "an image"),
    (WRONG_PHRASE, "the checksum is wrong"),
    (PHRASE + " about", "13 words"),
    (PHRASE + ".", "a sign"),
    (PHRASE.replace("about", "aboutx"), "no word of the list"),
    (PHRASE.replace(" ", "\v"), "vertical tabs separate no words"),
    ("Mnemonic: " + WRONG_PHRASE, "the checksum is wrong"),
    ("the bearer of this letter", "prose"),
    ("Bearer abcdefghijklmno", "15 characters"),
    ("forbearer abcdefghijklmnop", "another word"),
    ("Basic information", "no login"),
    ("Basic abcdefg", "no Base64"),
    ("VisualBasic dTpwdw==", "another word"),
    ("-----BEGIN PUBLIC KEY-----\nMIIB", "public"),
    ("-----BEGIN CERTIFICATE----- PRIVATE KEY", "a certificate"),
    (jwt('{"abc":"HS256","d":1}'), "no algorithm"),
    (jwt('{"alg":"HS256"')[:20] + ".e30.c2ln", "no JSON"),
    ("eyJ" + "A" * 20 + ".a.b", "no text"),
    ("eyJh" + "A" * 30, "one part"),
    ("x" + jwt(), "part of a longer word"),
    ("AKIA" + "Z" * 17, "too long"),
    ("AKIA" + "z" * 16, "small letters"),
    ("XAKIA" + "Z" * 16, "part of a longer word"),
    ("ghp_" + "a" * 35, "too short"),
    ("xoxb-your-slack-token-here", "a placeholder"),
    ("sk-learn-contrib-something", "a package"),
    ("task-" + "a" * 20, "another word"),
    ("1234567:AA" + "x" * 33, "no bot's id"),
    ("\\npm_" + "a" * 30, "too short"),
]
