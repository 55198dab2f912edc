"""The shortest way of a request, where mod_wsgi itself counts and nothing has to be noted but that it runs.

A trivial request is 75 us of work for a daemon; each microsecond here is more than one percent of that.  So there is no call that
can be avoided: the request is noted in line, and its end, when the body is a list.
"""
from _thread import get_ident
from time import monotonic

from modwsgi_tel.agent.middleware import handed_on, left
from modwsgi_tel.agent.requests import Request


def quick(middleware):
    """A function that does what a Middleware does, but for statuses and sizes, which mod_wsgi tells itself."""
    agent, application = middleware.hooks, middleware.app
    agent.has_quick = True
    requests, threshold = agent.requests, agent.threshold
    active, tids, following = requests.active, requests.tids, requests.next
    new, number_of_agent = Request.__new__, requests.agent

    def watched(environ, start_response):
        request = new(Request)
        request.environ, request.agent = environ, number_of_agent
        request.ident = ident = get_ident()
        request.number = number = following()
        request.began = began = monotonic()
        active[number] = request
        if ident not in tids:
            requests.learn(ident)
        if began >= agent.look_at:
            agent.look(began)
        try:
            result = application(environ, start_response)
        except BaseException as error:
            left(middleware, request, error)
            raise
        if type(result) is list:
            active.pop(number, None)
            if request.watch is not None or monotonic() - began >= threshold:
                agent.over(request)
            return result
        return handed_on(middleware, request, result, environ)

    watched.modwsgi_tel = middleware    # how scripts knows it again
    return watched
