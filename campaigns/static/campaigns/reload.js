// A running import: look again every two seconds, while somebody looks.
"use strict";
setInterval(() => { if (!document.hidden) location.reload(); }, 2000);
