"""The dashboard: routes of its pages, forms, login and static files."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from jobqueue.job_search import FILTER
from jobqueue.overview import forget_findings
from jobqueue.queue import JobQueue
from jobqueue.store.schema import PauseKind
from jobqueue.web.concurrency import Pools
from jobqueue.web.live import LiveViews
from jobqueue.web.pages import bulk, queues, schedules
from jobqueue.web.pages.errors import errors_page
from jobqueue.web.pages.job import job_page
from jobqueue.web.pages.jobs import VERBS, jobs_page
from jobqueue.web.pages.log import log_page, undo
from jobqueue.web.pages.now import now_page
from jobqueue.web.pages.tasks import switch, tasks_page
from jobqueue.web.pages.view import Act, Page
from jobqueue.web.pages.workers import workers_page
from jobqueue.web.requests import client_of, query_of, read_form
from jobqueue.web.responses import HTTPError
from jobqueue.web.rights import Rights
from jobqueue.web.security import RequestGuard, cookie_name, is_page, path_of, session_of
from jobqueue.web.session import COOKIE, LASTS
from jobqueue.web.static_files import static_files
from jobqueue.web.templating import environment

PAGES = (
    Page("/", now_page, ("span",), "Now", "n"),
    Page("/jobs", jobs_page, (*FILTER, "after"), "Jobs", "j"),
    Page("/jobs/{id}", job_page),
    Page("/errors", errors_page, ("since",), "Errors", "e"),
    Page("/queues", queues.queues_page, (), "Queues", "q"),
    Page("/queues/{name}", queues.queue_page),
    Page("/queues/{name}/purge", queues.purge_page),
    Page("/tasks", tasks_page, (), "Tasks", "t"),
    Page("/workers", workers_page, (), "Workers", "w"),
    Page("/schedules", schedules.schedules_page, (), "Schedules", "s"),
    Page("/schedules/{name}/remove", schedules.remove_page),
    Page("/log", log_page, ("before",), "Log", "l"),
)
"""In the order of the navigation."""

FORMS: tuple[tuple[str, Act], ...] = (
    *((f"/jobs/{{id:int}}/{verb}", bulk.act) for verb in VERBS),
    *(
        (f"/queues/{{name}}/{act.__name__}", act)
        for act in (queues.limit, queues.rate, queues.fair, queues.purge)
    ),
    *(
        (f"/{kind}s/{{name}}/{verb}", partial(switch, kind, verb))
        for kind in PauseKind
        for verb in ("pause", "resume")
    ),
    *(
        (f"/schedules/{{name}}/{act.__name__}", act)
        for act in (
            *(schedules.run, schedules.pause, schedules.resume),
            *(schedules.reset, schedules.remove),
        )
    ),
)
"""What buttons do. The last part of a path is its verb."""
UNDO = "/log/{id}/undo"

THEMES = ("auto", "light", "dark")
THEME, NOTICE = "jobqueue_theme", "jobqueue_notice"
NOTICE_MAX = 1000
YEAR = 365 * 86_400


class Dashboard:
    """The pages of one queue."""

    def __init__(self, jobs: JobQueue, guard: RequestGuard, threads: Pools) -> None:
        self._queue = jobs
        self._guard, self._sessions = guard, guard.sessions
        self._threads = threads
        self._templates: Environment = environment()
        self._live = LiveViews()
        self._by_path = {file.path: file for file in static_files().values()}

    def routes(self) -> list[Route]:
        """Return the routes."""
        verbs = [
            Route(path, partial(self._do, act, path.rpartition("/")[2]), methods=["POST"])
            for path, act in FORMS
        ]
        now = partial(now_page, open_names=self._guard.open_names)
        pages = [page._replace(view=now) if page.view is now_page else page for page in PAGES]
        bulk_verbs = [
            Route(f"/jobs/{verb}", partial(self._confirm, verb), methods=["GET", "POST"])
            for verb in VERBS
        ]
        return [
            *verbs,
            *bulk_verbs,
            Route(UNDO, self._undo, methods=["POST"]),
            *(Route(page.path, partial(self._show, page)) for page in pages),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/theme", self.theme, methods=["POST"]),
            Route("/static/{path:path}", self.static),
        ]

    async def _show(self, page: Page, request: Request) -> Response:
        query = {**query_of(request, *page.parameters), **request.path_params}
        read = partial(self._threads.reads, page.view, self._queue, query)
        follows = bool(_header(request.scope, b"hx-request"))
        seen = await self._live.get(_own_path(request.scope), read, follows=follows)
        return self._page(request.scope, seen.template, seen.data, serial=seen.serial)

    async def _confirm(self, verb: str, request: Request) -> Response:
        """Show what a verb would do, and do it once that is sent."""
        if request.method == "POST":
            return await self._do(bulk.act, verb, request, is_bulk=True)
        query = query_of(request, *bulk.PARAMETERS, repeated=("id",)) | {"verb": verb}
        template, data = await self._threads.reads(bulk.confirm_page, self._queue, query)
        return self._page(request.scope, template, data)

    async def _undo(self, request: Request) -> Response:
        rights: Rights = request.scope["jobqueue.rights"]
        return await self._do(partial(undo, require=rights.require), "undo", request)

    async def _do(
        self, act: Act, verb: str, request: Request, *, is_bulk: bool = False
    ) -> Response:
        """Do what a form asks for, and go on to where it shows."""
        form = await self._form(request) | {"verb": verb}
        form |= {name: str(value) for name, value in request.path_params.items()}
        to = form.pop("to", "/")
        is_bulk = is_bulk or act is queues.purge
        threads = self._threads.bulk if is_bulk else self._threads.writes
        done = await threads(act, self._queue, form, client_of(request))
        self._live.clear()
        forget_findings(self._queue.store)
        response = _to(request.scope, to if done.to is None else done.to)
        self._set(request.scope, response, NOTICE, quote(done.notice[:NOTICE_MAX]), lasts=60)
        return response

    async def _form(self, request: Request) -> dict[str, str]:
        """Return the fields of a form of ours. Raises HTTPError for one of anybody else."""
        form = await read_form(request)
        if not self._sessions.fits(form.pop("token", ""), session_of(request.scope)):
            raise HTTPError(403, "this page is out of date; load it again", field="token")
        return form

    async def login(self, request: Request) -> Response:
        """Take the token once, and answer with the cookie of a session."""
        to = query_of(request, "to").get("to", "/")
        if request.method != "POST":
            return self._page(request.scope, "login.html", {"wrong": False})
        form = await read_form(request)
        if not self._guard.accepts(form.get("password", "")):
            return self._page(request.scope, "login.html", {"wrong": True}, status=401)
        response = _to(request.scope, to)
        self._set(request.scope, response, COOKIE, self._sessions.new(), lasts=LASTS)
        return response

    async def logout(self, request: Request) -> Response:
        """Drop the session's cookie."""
        await self._form(request)
        response = _to(request.scope, "/login")
        self._set(request.scope, response, COOKIE, "", lasts=0)
        return response

    async def theme(self, request: Request) -> Response:
        """Keep the choice of colours in a cookie, for the first paint of the next page."""
        form = await self._form(request)
        chosen = form.get("theme", "")
        if chosen not in THEMES:
            raise HTTPError(400, f"theme: none of {', '.join(THEMES)}", field="theme")
        response = _to(request.scope, form.get("to", "/"))
        self._set(request.scope, response, THEME, chosen, lasts=YEAR)
        return response

    async def static(self, request: Request) -> Response:
        """Answer with a file. Its path has its hash, so that it may be kept for ever."""
        file = self._by_path.get(path_of(request.scope).lstrip("/"))
        if file is None:
            raise HTTPError(404, "there is no such file", field="path")
        headers = {"Cache-Control": f"public, max-age={YEAR}, immutable"}
        return Response(file.content, headers=headers, media_type=file.kind)

    def refuses(self, scope: Scope, error: HTTPError) -> Response | None:
        """Return the page for an error, where a browser asks for a page; else None."""
        if not (is_page(path_of(scope)) and "text/html" in _header(scope, b"accept")):
            return None
        if _header(scope, b"hx-request"):
            return None  # A whole page has no place in one; the script loads the page again.
        if error.status == 401:  # noqa: PLR2004
            if _header(scope, b"sec-fetch-site") in ("cross-site", "same-site"):
                # A link elsewhere brought the browser here, so that it has kept the cookie back.
                return self._page(scope, "arrive.html", {})
            return _to(scope, "/login?to=" + quote(_own_path(scope), ""))
        reads = scope["method"] in ("GET", "HEAD")
        data = {"status": error.status, "message": str(error), "reads": reads}
        response = self._page(scope, "error.html", data, status=error.status)
        response.headers.update(error.headers)
        return response

    def _page(
        self,
        scope: Scope,
        template: str,
        data: Mapping[str, Any],
        status: int = 200,
        serial: str | None = None,
    ) -> Response:
        """Return a page, or of a page that is there already the part that changes.

        `serial` is another one where the data is.
        """
        made = self._templates.get_template(template)
        if serial is not None and "live" in made.blocks and _header(scope, b"hx-request"):
            tag = f'"{serial}"'
            if tag in _header(scope, b"if-none-match"):
                return Response(status_code=304, headers={"ETag": tag})
            text = "".join(made.blocks["live"](made.new_context({**_common(scope), **data})))
            # The app adds no-store, as to all pages: a browser would go back to a copy of this,
            # which has the URL of the page. `jobqueue.js` keeps the tag.
            return HTMLResponse(text, headers={"ETag": tag})
        session, fresh = session_of(scope), None
        if not self._sessions.is_valid(session):
            # With a token only a login gives a session, and only a session has forms.
            session = fresh = None if self._guard.has_token else self._sessions.new()
        cookies = HTTPConnection(scope).cookies
        theme, notice = cookies.get(THEME), unquote(cookies.get(NOTICE, ""))
        more = {
            "nav": [page for page in PAGES if page.title],
            "static": lambda name: root_of(scope) + static_files()[name].path,
            "target": str(self._queue.store),
            "theme": theme if theme in THEMES else THEMES[0],
            "themes": THEMES,
            "token": self._sessions.form_token(session) if session else "",
            "has_token": self._guard.has_token,
            "notice": notice,
        }
        response = HTMLResponse(made.render({**_common(scope), **more, **data}), status)
        if fresh:
            self._set(scope, response, COOKIE, fresh, lasts=LASTS)
        if notice:
            self._set(scope, response, NOTICE, "", lasts=0)
        return response

    def _set(self, scope: Scope, to: Response, name: str, value: str, *, lasts: int) -> None:
        to.set_cookie(
            cookie_name(scope) if name == COOKIE else name,
            value,
            max_age=lasts,
            path=scope.get("root_path", "") or "/",
            secure=scope.get("scheme") == "https",
            httponly=True,
            samesite="strict",
        )


def root_of(scope: Scope) -> str:
    """Return the way from a page to the mount: links work behind any prefix, known or not."""
    return "../" * (path_of(scope).count("/") - 1) or "./"


def _to(scope: Scope, path: str) -> Response:
    """Go to a path and query below the mount. A relative URL leads to no other site."""
    return RedirectResponse(root_of(scope) + quote(path.lstrip("/\\"), "/?&=%,~:+"), 303)


def _own_path(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return path_of(scope) + (f"?{query}" if query else "")


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _common(scope: Scope) -> dict[str, Any]:
    """Return what all templates are given, also those of a part of a page."""
    rights: Rights = scope.get("jobqueue.rights") or Rights(frozenset())
    return {
        "root": root_of(scope),
        "here": _own_path(scope),
        "at": path_of(scope),
        "may": rights.allow,
    }
