// Reads PowerShell scripts, the arguments, by a grammar of the language, and
// says where one is none. NODE_PATH tells where the grammar is.
const fs = require('fs');
const { Language, Parser } = require('web-tree-sitter');

async function main(files) {
  await Parser.init();
  const parser = new Parser();
  const grammar = require.resolve('tree-sitter-powershell/package.json').replace('package.json', 'tree-sitter-powershell.wasm');
  parser.setLanguage(await Language.load(grammar));
  for (const file of files) {
    const visit = (node) => {
      if (node.isError || node.isMissing) {
        console.error(`${file}:${node.startPosition.row + 1}: not PowerShell: ${node.text.slice(0, 60)}`);
        process.exitCode = 1;
      } else if (node.hasError) {
        node.children.forEach(visit);
      }
    };
    visit(parser.parse(fs.readFileSync(file, 'utf8')).rootNode);
  }
}

main(process.argv.slice(2)).catch((err) => {
  console.error(err);
  process.exitCode = 2;
});
