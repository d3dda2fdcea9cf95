"""The report in a real browser: no error, no request, tables that sort, nothing too wide."""

import json
import shutil

import pytest
from finished_runs import write_run
from playwright.sync_api import sync_playwright

from ssl_extract import report

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'chrome'))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='there is no Chromium on the PATH: apt-get install chromium'
)
GUARD = 'similarity_guard(threshold=0.95, then="gaussian_noise(stddev=0.5)") | round(decimals=2)'
METRICS = (  # more than one table of them has room for
    *('cosine', 'l2', 'affine_l2', 'cka', 'neighbor_overlap', 'agreement', 'knn', 'fewshot'),
    *('classifier', 'another_one_of_the_users', *(f'number_{i}' for i in range(12))),
)
# The elements whose content is wider than they are.
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll('body *')]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
    .map((e) => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 60)}`)"""
BROKEN = """() => [...document.querySelectorAll('.one')]
    .filter((e) => e.getClientRects().length > 1).map((e) => e.textContent)"""
CELLS = """(table, column) => [...table.tBodies[0].rows].map((r) => r.cells[column].innerText)"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A report with tables of every kind, long names, and more rows than a screen holds."""
    folder = tmp_path_factory.mktemp('report')
    values = iter([0.812, 0.79, 0.8, 0.95, 0.65, 0.605, 0.9, 0.71])
    for number, value in enumerate(values):
        seed, budget, defense = number // 4, (100, 1000)[number % 2], ('', GUARD)[number // 2 % 2]
        fields = {'seed': seed, 'attack__budget': budget, 'defense': defense}
        run = write_run(folder, f'r{number}', value, **fields)
        rows = [json.loads(line) for line in (run / 'rows.jsonl').read_text().splitlines()]
        for i, metric in enumerate(METRICS):
            rows += [r | {'metric': metric, 'value': r['value'] - i / 100} for r in rows[:4]]
        rows = [r | {'ci_low': r['value'] - 0.03, 'ci_high': r['value'] + 0.03} for r in rows]
        (run / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        about = json.loads((run / 'run.json').read_text())
        about['defaults'] = {'attack.budget': 9000, 'defense': ''}
        (run / 'run.json').write_text(json.dumps(about))
        (bill,) = json.loads((run / 'bills.json').read_text())
        (run / 'bills.json').write_text(json.dumps([bill | {'account': f'account{number}'}]))
    report.write_from(folder, [folder], 'Every kind of table <b>&')
    return folder


@pytest.fixture(scope='module')
def browser():
    # Without the sandbox, which root, as in a container, cannot have; the page is our own.
    how = {'executable_path': CHROMIUM, 'args': ['--no-sandbox']}
    with sync_playwright() as playwright, playwright.chromium.launch(**how) as chromium:
        yield chromium


@pytest.fixture
def opened(browser, folder):
    """Opens the report in a window of a width; at the end nothing may have gone wrong."""
    problems, pages = [], []

    def open_page(width, **options):
        page = browser.new_page(viewport={'width': width, 'height': 900}, **options)
        pages.append(page)
        page.on('console', lambda message: problems.append(f'{message.type}: {message.text}'))
        page.on('pageerror', lambda error: problems.append(str(error)))
        address = (folder / 'report.html').as_uri()
        page.on('request', lambda r: r.url.startswith(('data:', address)) or problems.append(r.url))
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert problems == []


def test_a_script_of_another_or_a_request_would_be_seen(browser, folder):
    """The checks of `opened` can fail: the page's own rules refuse both, in the console."""
    page = browser.new_page()
    messages = []
    page.on('console', lambda message: messages.append(message.text))
    page.goto((folder / 'report.html').as_uri())
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "changed"';
        const image = document.createElement('img');
        image.src = 'http://localhost:9/x.png';
        document.body.append(script, image);
    }""")
    page.wait_for_timeout(100)
    assert page.title() == 'Every kind of table <b>&'
    assert len(messages) == 2 and all('Content Security Policy' in text for text in messages)
    page.close()


@pytest.mark.parametrize('width', [1300, 400])
@pytest.mark.parametrize('scripts', [True, False])
def test_nothing_is_wider_than_its_place_and_numbers_are_whole(opened, width, scripts):
    page = opened(width, java_script_enabled=scripts)
    for details in page.query_selector_all('summary'):
        details.click()
    assert page.evaluate('document.documentElement.scrollWidth') == width
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(BROKEN) == []
    assert page.locator('.one').count() > 100
    sizes = page.evaluate(
        "[...document.querySelectorAll('td')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 10
    if width == 1300:
        assert page.evaluate('document.body.clientWidth') > 62 * 16


def test_tables_sort_by_a_click_and_return(opened):
    page = opened(1300)
    table = page.locator('table').first
    names = table.locator('th').all_inner_texts()
    head = names.index('Accuracy, %')
    button, attack = table.locator('th button').nth(head), names.index('Defense')
    before = table.evaluate(CELLS, head)
    values = sorted(map(float, before))
    assert values != list(map(float, before)) and len(set(values)) > 5
    button.click()
    assert list(map(float, table.evaluate(CELLS, head))) == values
    assert table.locator('th').nth(head).get_attribute('aria-sort') == 'ascending'
    button.click()
    assert list(map(float, table.evaluate(CELLS, head))) == values[::-1]
    table.locator('th button').nth(attack).press('Enter')  # by the keyboard, and by text
    cells = table.evaluate(CELLS, attack)
    assert cells[:2] == [GUARD] * 2 and set(cells[2:]) == {'–'}  # what is empty comes last
    assert table.locator('th[aria-sort]').count() == 1
    table.locator('th button').nth(attack).press('Enter')
    assert table.evaluate(CELLS, attack) == cells
    table.locator('th button').nth(attack).press('Enter')
    assert table.evaluate(CELLS, head) == before


def test_numbers_sort_by_value_as_they_are_written(opened):
    written = ['−5.0 (−9.0 to −1.0)', '1,024', '2 min 21 s', '8.2 s', '1 h 0 min', '+3.2', '$0.1']
    values = opened(1300).evaluate('(all) => all.map(number)', [*written, '1e-05', '–', ''])
    assert values == [-5.0, 1024, 141, 8.2, 3600, 3.2, 0.1, 1e-5, None, None]


def test_the_sum_of_a_table_stays_its_last_row(opened):
    page = opened(1300)
    table = page.locator('table:has(tr.total)')
    column = table.locator('th').all_inner_texts().index('Billed')
    for _ in range(2):
        table.locator('th button').nth(column).click()
        assert table.locator('tbody tr').last.locator('td').first.inner_text() == 'All accounts'


def test_contents_and_links_lead_somewhere(opened, folder):
    page = opened(1300)
    contents = page.locator('nav a').evaluate_all('(all) => all.map((a) => a.hash)')
    assert contents[0] == '#what_was_stolen' and contents[-2:] == ['#configuration', '#glossary']
    assert len(contents) == page.locator('h2').count() == len(set(contents))
    page.locator('nav a').last.click()
    page.wait_for_function('window.scrollY > 500')
    assert page.evaluate('document.querySelector(location.hash).textContent') == 'Glossary'
    links = page.locator('main a').evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")
    assert {link.split('/')[0] for link in links} == {
        *('figures', 'tables', 'runs', 'surrogate', 'victim'),
    }
    assert all((folder / link).exists() for link in links)
