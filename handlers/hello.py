"""The smallest handler: this file is /hello/, and what `handle` returns is the answer.

Try /hello/?name=Ada. Text that begins with "<" is sent as HTML, other text as plain text.
"""


def handle(request):
    return f"Hello, {request.query.get('name', 'world')}!\n"
