// Dims the columns of a row that its first choice leaves unused: the values of a filter
// that callers fill, the signal of a term that weighs similarity.
(() => {
  const tables = [
    {
      chooser: "#filters-group select[name$='-value_from']",
      columns: ["operator", "values", "key", "when_missing"],
      used: { static: ["operator", "values"], context: ["operator", "key", "when_missing"], caller: ["when_missing"] },
    },
    {
      chooser: "#terms-group select[name$='-kind']",
      columns: ["signal", "field"],
      used: { similarity: [], field: ["field"], signal: ["signal", "field"] },
    },
  ];

  function dim(table, chooser) {
    const row = chooser.closest("tr");
    for (const column of table.columns) {
      const used = (table.used[chooser.value] ?? table.columns).includes(column);
      row.querySelector(`td.field-${column}`)?.classList.toggle("rp-unused", !used);
    }
  }

  function dimAll() {
    for (const table of tables) document.querySelectorAll(table.chooser).forEach((chooser) => dim(table, chooser));
  }

  document.addEventListener("DOMContentLoaded", dimAll);
  document.addEventListener("formset:added", dimAll);
  document.addEventListener("change", (event) => {
    const table = tables.find(({ chooser }) => event.target.matches(chooser));
    if (table) dim(table, event.target);
  });
})();
