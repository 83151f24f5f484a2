from . import html as html
from . import markdown as markdown
from . import training as training
